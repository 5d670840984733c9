package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/event"
	"openshell.dev/openshell/internal/kerneltest"
	"openshell.dev/openshell/internal/netns"
	"openshell.dev/openshell/internal/sockdiag"
)

// inside is a program in a namespace of its own, behind the real fence.
type inside struct {
	t     *testing.T
	in    io.Writer
	out   *bufio.Reader
	floor netns.Sockets
}

func (i *inside) do(format string, args ...any) string {
	i.t.Helper()
	fmt.Fprintf(i.in, format+"\n", args...)
	s, err := i.out.ReadString('\n')
	if err != nil {
		i.t.Fatalf("the program inside is gone: %v", err)
	}
	return strings.TrimSpace(s)
}

// enter makes a namespace with the floor and a program in it.
func enter(t *testing.T) *inside {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "hand-over")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "EGRESS_ROLE=inside")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	t.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
	i := &inside{t: t, in: stdin, out: bufio.NewReader(stdout)}
	oob := make([]byte, unix.CmsgSpace(4*int(netns.Count)))
	_, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 64), oob, unix.MSG_CMSG_CLOEXEC)
	_ = unix.Close(pair[0])
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		t.Fatalf("hand-over: %v", err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != int(netns.Count) {
		t.Fatalf("%d descriptors, %v", len(fds), err)
	}
	copy(i.floor[:], fds)
	return i
}

// liveInside is the body of the program inside.
func liveInside() error {
	rep, err := netns.Setup()
	if err != nil {
		return err
	}
	floor, err := netns.Listen(rep)
	if err != nil {
		return err
	}
	if err := floor.LoadFence(); err != nil {
		return err
	}
	if err := unix.Sendmsg(3, []byte("floor"), unix.UnixRights(floor[:]...), nil, 0); err != nil {
		return err
	}
	floor.Close()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		words := strings.Fields(in.Text())
		said, err := obey(words[0], words[1:])
		if err != nil {
			said = "error: " + err.Error()
		}
		fmt.Println(strings.ReplaceAll(said, "\n", " "))
	}
	return nil
}

func insideResolver(network, server string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server)
	}}
}

func obey(verb string, args []string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dialer := &net.Dialer{Resolver: insideResolver("udp", "10.200.0.1:53")}
	switch verb {
	case "lookup":
		got, err := insideResolver(args[0], args[1]).LookupHost(ctx, args[2])
		return strings.Join(got, " "), err
	case "get":
		tr := &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}
		req, err := http.NewRequestWithContext(ctx, "GET", args[0], nil)
		if err != nil {
			return "", err
		}
		res, err := tr.RoundTrip(req)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return fmt.Sprintf("%d %s", res.StatusCode, body), err
	case "tls":
		c, err := dialer.DialContext(ctx, "tcp", args[0])
		if err != nil {
			return "", err
		}
		defer c.Close()
		host, _, _ := net.SplitHostPort(args[0])
		return "shaken hands", tls.Client(c, &tls.Config{ServerName: host, InsecureSkipVerify: true}).HandshakeContext(ctx)
	case "raw":
		c, err := dialer.DialContext(ctx, "tcp", args[0])
		if err != nil {
			return "", err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(c, strings.Join(args[1:], " ")+"\r\n\r\n")
		got, err := io.ReadAll(c)
		return string(got), err
	}
	return "", errors.New("unknown verb")
}

// TestAProgramBehindTheFence runs the whole floor: real rules, real capture,
// real owner tuples, as an ordinary account, proxy and upstream outside.
func TestAProgramBehindTheFence(t *testing.T) {
	kerneltest.Require(t, kerneltest.NetAdmin)
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		i := enter(t)
		upstream := serve(t, func(c net.Conn) {
			req, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(req.Host), req.Host)
		})
		ring, z := event.NewRing(100), &zone{names: map[string][]string{"api.example.com": {"127.0.0.1"}}}
		p := New(Options{
			Policy:   rules{allow: []string{"api.example.com:" + upstream.port}, private: true},
			Resolver: z, Events: ring, Hostname: "box", Self: netip.MustParseAddr(netns.Address),
			Own: prefixes("10.200.0.0/24", "fd00:200::/64"),
		})
		diag := sockdiag.NewDiag(i.floor[netns.Diag])
		curl := newProgram(t, "/usr/bin/curl").executable(t)
		src := &Redirect{Original: sockdiag.OriginalDst, Owners: ownerFunc(func(_ context.Context, c, o netip.AddrPort) (Owner, error) {
			s, err := diag.Lookup(c, o)
			if err != nil || s.Inode == 0 {
				return Owner{}, err
			}
			return Owner{[]Holder{{PID: 1, Chain: []Executable{curl}}}}, nil
		})}
		for n := netns.HTTP; n <= netns.DNSTCP6; n++ {
			f := os.NewFile(uintptr(i.floor[n]), "floor")
			switch n {
			case netns.DNSUDP4, netns.DNSUDP6:
				c, err := PacketConn(f)
				if err != nil {
					t.Fatal(err)
				}
				src.DNS = append(src.DNS, c)
			default:
				l, err := Listener(f)
				if err != nil {
					t.Fatal(err)
				}
				switch n {
				case netns.HTTP:
					src.Explicit = append(src.Explicit, l)
				case netns.TCP4, netns.TCP6:
					src.Caught = append(src.Caught, l)
				default:
					src.DNSTCP = append(src.DNSTCP, l)
				}
			}
		}
		done := make(chan error, 1)
		go func() { done <- p.Serve(context.Background(), src) }()
		defer func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			p.Close(ctx)
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		port := upstream.port
		for _, row := range []struct{ do, want string }{
			{"lookup udp 10.200.0.1:53 api.example.com", "198.18.0.1"},
			{"lookup udp 8.8.8.8:53 api.example.com", "198.18.0.1"},
			{"lookup tcp 8.8.8.8:53 api.example.com", "198.18.0.1"},
			{"lookup udp [2001:4860:4860::8888]:53 api.example.com", "198.18.0.1"},
			{"lookup tcp [2001:4860:4860::8888]:53 api.example.com", "198.18.0.1"},
			{"lookup udp 10.200.0.1:53 wpad", "no such host"},
			{"get http://api.example.com:" + port + "/", "200 api.example.com:" + port},
			{"get http://evil.example.com/", `403 {"error":"policy_denied","detail":"CONNECT evil.example.com:80 not permitted by policy"`},
			{"get http://93.184.216.34/", `CONNECT 93.184.216.34:80 not permitted by policy`},
			{"get http://[2606:2800:220:1::1]/", `CONNECT [2606:2800:220:1::1]:80 not permitted by policy`},
			{"tls evil.example.com:443", "access denied"},
			{"raw evil.example.com:22 SSH-2.0-x", "connection reset by peer"},
			{"raw 10.200.0.2:15001 GET / HTTP/1.1", "connection re"},
			{"raw 198.19.200.200:443 x", "connection reset by peer"},
			{"raw 10.200.0.1:3128 GET http://api.example.com:" + port + "/ HTTP/1.0", "HTTP/1.1 200 OK"},
			{"raw 10.200.0.1:3128 CONNECT evil.example.com:443 HTTP/1.1", "HTTP/1.1 403 Forbidden"},
		} {
			if got := i.do("%s", row.do); !strings.Contains(got, row.want) {
				t.Errorf("%s: %q, want %q", row.do, got, row.want)
			}
		}
		if got := z.questions(); len(got) != 2 {
			t.Errorf("asked upstream for %v, want api.example.com. twice", got)
		}
		if n := upstream.hits.Load(); n != 2 {
			t.Errorf("%d connections reached the upstream, want 2", n)
		}
		for _, e := range ring.Events() {
			t.Log(event.Line(e))
		}
	})
}
