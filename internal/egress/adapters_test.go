package egress

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"openshell.dev/openshell/internal/event"
)

func TestEveryAdapterReachesAnAllowedHost(t *testing.T) {
	up := serve(t, echo)
	b := start(t, Options{Policy: rules{allow: []string{"api.example.com:" + up.port}, private: true}})
	b.zone.names["api.example.com"] = []string{"127.0.0.1"}
	port := []byte{0, 0}
	var n int
	fmt.Sscan(up.port, &n)
	port[0], port[1] = byte(n>>8), byte(n)
	for _, row := range []struct {
		name, addr    string
		hello, answer string
	}{
		{"transparent", b.caught, "", ""},
		{"CONNECT", b.explicit, "CONNECT api.example.com:" + up.port + " HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 Connection Established\r\n\r\n"},
		{"CONNECT in capitals with a final dot", b.explicit, "CONNECT API.Example.COM.:" + up.port + " HTTP/1.1\r\n\r\n", "HTTP/1.1 200 Connection Established\r\n\r\n"},
		{"CONNECT to the synthetic address", b.explicit, "CONNECT " + b.synthetic("api.example.com") + ":" + up.port + " HTTP/1.0\r\n\r\n", "HTTP/1.1 200 Connection Established\r\n\r\n"},
		{"SOCKS5 by name", b.explicit, "\x05\x02\x02\x00\x05\x01\x00\x03\x0fapi.example.com" + string(port), "\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b.meant(b.synthetic("api.example.com") + ":" + up.port)
			c := dial(t, row.addr)
			// The first bytes of the tunnel come right behind the head.
			if _, err := io.WriteString(c, row.hello+"ping\n"); err != nil {
				t.Fatal(err)
			}
			want := row.answer + "ping\n"
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
				t.Fatalf("got %q, %v, want %q", got, err, want)
			}
			_ = c.CloseWrite()
			if rest, err := io.ReadAll(c); err != nil || len(rest) != 0 {
				t.Errorf("after the end: %q, %v", rest, err)
			}
		})
	}
	if got := b.events(5, allowed); len(got) != 5 || event.Line(got[0]) !=
		"NET:OPEN [INFO] ALLOWED /usr/bin/curl(64) -> api.example.com:"+up.port+" [policy:r engine:opa]" {
		t.Errorf("%d events, first %q", len(got), event.Line(got[0]))
	}
	if got := b.zone.questions(); len(got) != 5 {
		t.Errorf("resolved %d times for 5 connections: %v", len(got), got)
	}
}

func TestADeniedConnectionIsToldAtOnce(t *testing.T) {
	up := serve(t, echo)
	b := start(t, Options{Policy: rules{}})
	b.meant(b.synthetic("evil.example.com") + ":443")
	t.Run("TLS gets access_denied", func(t *testing.T) {
		c := dial(t, b.caught)
		err := tls.Client(c, &tls.Config{ServerName: "evil.example.com"}).Handshake()
		if err == nil || !strings.Contains(err.Error(), "access denied") {
			t.Errorf("handshake: %v", err)
		}
	})
	t.Run("a hello that comes in single bytes too", func(t *testing.T) {
		c := dial(t, b.caught)
		for _, one := range []byte{22, 3, 1, 2, 0, 1, 0, 1} {
			if _, err := c.Write([]byte{one}); err != nil {
				break // it was told before it had said all
			}
			time.Sleep(time.Millisecond)
		}
		if got, _ := io.ReadAll(c); string(got) != string(alertAccessDenied) {
			t.Errorf("got %x", got)
		}
	})
	t.Run("HTTP gets the reason", func(t *testing.T) {
		got := exchange(t, b.caught, "GET /x?token=1 HTTP/1.1\r\nHost: evil.example.com\r\n\r\n")
		head, body, _ := strings.Cut(got, "\r\n\r\n")
		if !strings.HasPrefix(head, "HTTP/1.1 403 Forbidden\r\n") {
			t.Fatalf("got %q", got)
		}
		var d map[string]any
		if err := json.Unmarshal([]byte(body), &d); err != nil {
			t.Fatal(err)
		}
		for k, want := range map[string]any{
			"error":  "policy_denied",
			"detail": "CONNECT evil.example.com:443 not permitted by policy",
			"reason": "endpoint evil.example.com:443 is not allowed by any policy",
			"host":   "evil.example.com", "port": 443.0, "binary": "/usr/bin/curl",
			"narrowest_change": `evil_example_com_443: {endpoints: [{host: "evil.example.com", port: 443}], binaries: [{path: "/usr/bin/curl"}]}`,
		} {
			if d[k] != want {
				t.Errorf("%s = %v, want %v", k, d[k], want)
			}
		}
	})
	t.Run("anything else is reset", func(t *testing.T) {
		c := dial(t, b.caught)
		_, _ = io.WriteString(c, "SSH-2.0-x\r\n")
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, want a reset", err)
		}
	})
	t.Run("a silent client is reset", func(t *testing.T) {
		if err := wasEnded(t, b.caught); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, want a reset", err)
		}
	})
	t.Run("a port where the server speaks first is reset without a peek", func(t *testing.T) {
		b.meant(b.synthetic("evil.example.com") + ":22")
		if err := wasEnded(t, b.caught); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, want a reset", err)
		}
	})
	t.Run("CONNECT", func(t *testing.T) {
		got := exchange(t, b.explicit, "CONNECT evil.example.com:443 HTTP/1.1\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 403 ") || !strings.Contains(got, `"error":"policy_denied","detail":"CONNECT evil.example.com:443 not permitted by policy","reason":"`) {
			t.Errorf("got %q", got)
		}
	})
	t.Run("absolute form", func(t *testing.T) {
		got := exchange(t, b.explicit, "GET http://evil.example.com/a?k=v HTTP/1.1\r\nHost: evil.example.com\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 403 ") || !strings.Contains(got, `GET evil.example.com:80/a?[redacted] not permitted by policy`) {
			t.Errorf("got %q", got)
		}
		events := b.events(1, func(e event.Event) bool { return e.Class == event.HTTP })
		if len(events) != 1 || event.Line(events[0]) != `HTTP:GET [MED] DENIED /usr/bin/curl(64) -> GET http://evil.example.com/a?\[redacted\] [policy:- engine:opa] [reason:endpoint evil.example.com:80 is not allowed by any policy]` {
			t.Errorf("events %+v", events)
		}
	})
	t.Run("SOCKS5", func(t *testing.T) {
		got := exchange(t, b.explicit, "\x05\x01\x00\x05\x01\x00\x03\x10evil.example.com\x01\xbb")
		if got != "\x05\x00\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00" {
			t.Errorf("got %q", got)
		}
	})
	if n := up.hits.Load(); n != 0 {
		t.Errorf("%d connections reached an upstream", n)
	}
	if got := b.zone.questions(); len(got) != 0 {
		t.Errorf("resolved %v for denied connections", got)
	}
}

func TestABurstOfDenialsIsOneEventAndASum(t *testing.T) {
	b := start(t, Options{Policy: rules{}, Limits: Limits{Burst: time.Hour}})
	for range 20 {
		exchange(t, b.explicit, "CONNECT evil.example.com:443 HTTP/1.1\r\n\r\n")
	}
	if got := b.events(1, denied); len(got) != 1 {
		t.Fatalf("%d events, want one", len(got))
	}
	b.proxy.denials.flush(time.Time{})
	got := b.events(2, denied)
	if len(got) != 2 || got[1].Count != 19 || got[1].First.IsZero() {
		t.Fatalf("sum = %+v", got)
	}
	if s := b.proxy.Stats(); s.Denied != 20 {
		t.Errorf("denied = %d, want 20", s.Denied)
	}
}

func TestOwnersDecide(t *testing.T) {
	up := serve(t, echo)
	b := start(t, Options{Policy: rules{allow: []string{"a.example.com:" + up.port}, private: true, program: "/usr/bin/git"}})
	b.zone.names["a.example.com"] = []string{"127.0.0.1"}
	git, sh, curl := newProgram(t, "/usr/bin/git"), newProgram(t, "/bin/sh").executable(t), newProgram(t, "/usr/bin/curl").executable(t)
	try := func() string {
		c := dial(t, b.explicit)
		fmt.Fprintf(c, "CONNECT a.example.com:%s HTTP/1.1\r\n\r\n", up.port)
		return strings.TrimSpace(readLine(t, c))
	}
	const ok, no = "HTTP/1.1 200 Connection Established", "HTTP/1.1 403 Forbidden"
	gitX := git.executable(t)
	for _, row := range []struct {
		name  string
		owner func() (Owner, error)
		want  string
	}{
		{"the program itself", func() (Owner, error) { return Owner{[]Holder{{1, []Executable{gitX}}}}, nil }, ok},
		{"a child of it", func() (Owner, error) { return Owner{[]Holder{{1, []Executable{curl, sh, gitX}}}}, nil }, ok},
		{"another program", func() (Owner, error) { return Owner{[]Holder{{1, []Executable{curl, sh}}}}, nil }, no},
		{"shared with another program", func() (Owner, error) {
			return Owner{[]Holder{{1, []Executable{gitX}}, {2, []Executable{curl}}}}, nil
		}, no},
		{"nobody", func() (Owner, error) { return Owner{}, nil }, no},
		{"a holder without a program", func() (Owner, error) { return Owner{[]Holder{{PID: 1}}}, nil }, no},
		{"a failed look-up", func() (Owner, error) { return Owner{}, os.ErrPermission }, no},
		{"an executable that cannot be read", func() (Owner, error) {
			x := Executable{Path: "/usr/bin/git", Open: func() (*os.File, error) { return nil, os.ErrNotExist }}
			return Owner{[]Holder{{1, []Executable{x}}}}, nil
		}, no},
	} {
		t.Run(row.name, func(t *testing.T) {
			b.owned(row.owner)
			if got := try(); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
	t.Run("a program replaced after its first use", func(t *testing.T) {
		if err := os.WriteFile(git.file, []byte("other"), 0o755); err != nil {
			t.Fatal(err)
		}
		changed := git.executable(t)
		b.owned(func() (Owner, error) { return Owner{[]Holder{{1, []Executable{changed}}}}, nil })
		if got := try(); got != no {
			t.Errorf("got %q, want %q", got, no)
		}
		events := b.events(1, func(e event.Event) bool { return strings.Contains(e.Detail, "replaced") })
		if len(events) != 1 {
			t.Errorf("%d events say that it was replaced", len(events))
		}
	})
}

func TestWhatIsNoRequestIsRefused(t *testing.T) {
	b := start(t, Options{Policy: rules{wild: []string{".com"}, private: true}})
	for _, row := range []struct{ name, send, want string }{
		{"origin form", "GET / HTTP/1.1\r\nHost: a.com\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n"},
		{"asterisk form", "OPTIONS * HTTP/1.1\r\nHost: a.com\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n"},
		{"https in absolute form", "GET https://a.com/ HTTP/1.1\r\nHost: a.com\r\n\r\n", "Use CONNECT for HTTPS URLs"},
		{"another scheme", "GET ftp://a.com/ HTTP/1.1\r\nHost: a.com\r\n\r\n", "unsupported_proxy_scheme"},
		{"user information", "GET http://u@a.com/ HTTP/1.1\r\nHost: a.com\r\n\r\n", "HTTP/1.1 400 "},
		{"CONNECT without port", "CONNECT a.com HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		{"CONNECT with a path", "CONNECT a.com:443/ HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		{"CONNECT with a sign in the port", "CONNECT a.com:+443 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		{"CONNECT to port 0", "CONNECT a.com:0 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		{"CONNECT to a zone", "CONNECT [fe80::1%25eth0]:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		{"CONNECT to a NUL", "CONNECT evil\x00.a.com:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		{"CONNECT to octal", "CONNECT 0177.0.0.1:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		{"CONNECT to a number", "CONNECT 2130706433:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		{"CONNECT to hexadecimal", "CONNECT 0x7f.1:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		{"a huge head", "CONNECT a.com:443 HTTP/1.1\r\nX: " + strings.Repeat("x", 9000) + "\r\n\r\n", "HTTP/1.1 431 "},
		{"HTTP/1.2", "CONNECT a.com:443 HTTP/1.2\r\n\r\n", "HTTP/1.1 400 "},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 400 "},
		{"SOCKS4", "\x04\x01\x00\x50\x01\x02\x03\x04\x00", "\x00\x5b\x00\x00\x00\x00\x00\x00"},
		{"SOCKS4a", "\x04\x01\x00\x50\x00\x00\x00\x01\x00a.com\x00", "\x00\x5b\x00\x00\x00\x00\x00\x00"},
		{"SOCKS5 with a password only", "\x05\x01\x02", "\x05\xff"},
		{"SOCKS5 BIND", "\x05\x01\x00\x05\x02\x00\x01\x01\x02\x03\x04\x00\x50", "\x05\x00\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"SOCKS5 UDP", "\x05\x01\x00\x05\x03\x00\x01\x01\x02\x03\x04\x00\x50", "\x05\x00\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"SOCKS5 with NUL in the name", "\x05\x01\x00\x05\x01\x00\x03\x0bevil\x00.a.com\x00\x50", "\x05\x00\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"SOCKS5 with an unknown address type", "\x05\x01\x00\x05\x01\x00\x09aaaa", "\x05\x00\x05\x08\x00\x01\x00\x00\x00\x00\x00\x00"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := exchange(t, b.explicit, row.send); !strings.Contains(got, row.want) {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
	if got := b.zone.questions(); len(got) != 0 {
		t.Errorf("resolved %v", got)
	}
}

func TestAddressesAreCheckedAndExactlyTheCheckedOneIsDialled(t *testing.T) {
	up := serve(t, echo)
	allow := []string{"x.example.com:" + up.port, "127.0.0.1:" + up.port, "198.18.5.5:80", "host.openshell.internal:" + up.port}
	var dialled []string
	b := start(t, Options{Policy: rules{allow: allow}})
	try := func(host string) string {
		c := dial(t, b.explicit)
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\n\r\n", net.JoinHostPort(host, up.port))
		got, _ := io.ReadAll(c)
		return string(got)
	}
	for _, addr := range []string{"127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "0.0.0.0", "::", "::ffff:127.0.0.1", "224.0.0.1", "198.18.0.9"} {
		b.zone.names["x.example.com"] = []string{addr}
		if got := try("x.example.com"); !strings.Contains(got, `"error":"ssrf_denied","detail":"CONNECT x.example.com:`+up.port+` blocked: `) {
			t.Errorf("%s: %q", addr, got)
		}
	}
	if got := try("127.0.0.1"); !strings.Contains(got, "ssrf_denied") {
		t.Errorf("literal loopback: %q", got)
	}
	if got := try("198.18.5.5"); !strings.Contains(got, "stands for no name") {
		t.Errorf("an address never given out: %q", got)
	}
	if got := try("host.openshell.internal"); !strings.Contains(got, "no address of the host") {
		t.Errorf("host alias without an address: %q", got)
	}
	if n := up.hits.Load(); n != 0 || len(dialled) != 0 {
		t.Errorf("%d connections got through", n)
	}
}

func TestTheHostAliasLeadsToExactlyTheHost(t *testing.T) {
	up := serve(t, echo)
	b := start(t, Options{Policy: rules{allow: []string{"host.openshell.internal:" + up.port, "host.openshell.internal:6443"}}, HostAddress: mustAddr("127.0.0.1")})
	c := dial(t, b.explicit)
	fmt.Fprintf(c, "CONNECT host.openshell.internal:%s HTTP/1.1\r\n\r\n", up.port)
	if got := readLine(t, c); got != "HTTP/1.1 200 Connection Established\r\n" {
		t.Errorf("got %q", got)
	}
	if got := exchange(t, b.explicit, "CONNECT host.openshell.internal:6443 HTTP/1.1\r\n\r\n"); !strings.Contains(got, "control plane") {
		t.Errorf("control-plane port: %q", got)
	}
	if got := exchange(t, b.explicit, "CONNECT policy.local:80 HTTP/1.1\r\n\r\n"); !strings.Contains(got, "reserved") {
		t.Errorf("reserved name: %q", got)
	}
	if got := b.zone.questions(); len(got) != 0 {
		t.Errorf("resolved %v", got)
	}
}

func TestRebindingIsDialledNowhere(t *testing.T) {
	up := serve(t, echo)
	b := start(t, Options{Policy: rules{allow: []string{"r.example.com:" + up.port}}})
	// A public and a private address in one answer: only the public one is
	// tried. It does not answer here, and the private one is not a way out.
	b.zone.names["r.example.com"] = []string{"10.1.1.1", "127.0.0.1"}
	got := exchange(t, b.explicit, "CONNECT r.example.com:"+up.port+" HTTP/1.1\r\n\r\n")
	if !strings.Contains(got, "ssrf_denied") || up.hits.Load() != 0 {
		t.Errorf("got %q", got)
	}
	if n := len(b.zone.questions()); n != 1 {
		t.Errorf("resolved %d times, want once", n)
	}
}

func TestAnUnreachableDestinationIsSaid(t *testing.T) {
	closed := listen(t)
	_, port, _ := net.SplitHostPort(closed.Addr().String())
	_ = closed.Close()
	b := start(t, Options{Policy: rules{allow: []string{"a.example.com:" + port, "none.example.com:80"}, private: true}})
	b.zone.names["a.example.com"] = []string{"127.0.0.1"}
	if got := exchange(t, b.explicit, "CONNECT a.example.com:"+port+" HTTP/1.1\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 502 ") || !strings.Contains(got, "upstream_unreachable") {
		t.Errorf("refused: %q", got)
	}
	if got := exchange(t, b.explicit, "CONNECT none.example.com:80 HTTP/1.1\r\n\r\n"); !strings.Contains(got, "the name does not exist") {
		t.Errorf("no such name: %q", got)
	}
	b.meant(b.synthetic("a.example.com") + ":" + port)
	if err := wasEnded(t, b.caught); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("caught: %v, want a reset", err)
	}
}

func TestAddressesOfTheSandboxItselfAreRefused(t *testing.T) {
	b := start(t, Options{Policy: rules{wild: []string{""}, private: true}, Own: prefixes("10.200.0.1/32", "10.200.0.2/32")})
	for _, to := range []string{"127.0.0.1:15001", "[::1]:15001", "10.200.0.1:443", "10.200.0.2:22", "198.18.9.9:443"} {
		b.meant(to)
		if err := wasEnded(t, b.caught); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v, want a reset", to, err)
		}
	}
	if got := exchange(t, b.explicit, "CONNECT 10.200.0.2:80 HTTP/1.1\r\n\r\n"); !strings.Contains(got, "sandbox itself") {
		t.Errorf("got %q", got)
	}
}

func TestASlowRequestIsNotWaitedFor(t *testing.T) {
	b := start(t, Options{Policy: rules{}, Limits: Limits{Handshake: 200 * time.Millisecond}})
	for name, part := range map[string]string{
		"nothing":      "",
		"half a head":  "CONNECT a.example.com:443 HTTP/1.1\r\nX: ",
		"half a SOCKS": "\x05\x01\x00\x05\x01\x00\x03\x20abc",
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, b.explicit)
			_, _ = io.WriteString(c, part)
			_, err := io.ReadAll(c)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("it was waited for")
			}
		})
	}
	waitFor(t, "all to end", func() bool { return b.proxy.Stats().Open == 0 })
}

// A sandbox that is closed takes everybody along who still waits for
// something: an owner, a name, a dial, or the client itself.
func TestCloseWaitsForNobody(t *testing.T) {
	up := serve(t, echo)
	hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for _, row := range []struct {
		name string
		opts Options
		send string
	}{
		{"a dial", Options{Dial: func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) { return nil, hang(ctx) }}, "CONNECT a.example.com:" + up.port + " HTTP/1.1\r\n\r\n"},
		{"a name", Options{Resolver: hangingResolver(hang)}, "CONNECT a.example.com:" + up.port + " HTTP/1.1\r\n\r\n"},
		{"a head", Options{}, "CONNECT a.exa"},
		{"a tunnel", Options{}, "CONNECT a.example.com:" + up.port + " HTTP/1.1\r\n\r\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.opts.Policy = rules{allow: []string{"a.example.com:" + up.port}, private: true}
			b := start(t, row.opts)
			b.zone.names["a.example.com"] = []string{"127.0.0.1"}
			c := dial(t, b.explicit)
			_, _ = io.WriteString(c, row.send)
			waitFor(t, "the connection", func() bool { return b.proxy.Stats().Open == 1 })
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			b.proxy.Close(ctx)
			if n := b.proxy.Stats().Open; n != 0 {
				t.Errorf("%d connections left", n)
			}
		})
	}
}

type hangingResolver func(context.Context) error

func (h hangingResolver) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	return nil, h(ctx)
}
