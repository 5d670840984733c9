package netns

import (
	"errors"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

func TestTheKernelHoldsTheFence(t *testing.T) {
	inside(t, func(t *testing.T) {
		s, _ := floor(t)
		conn, err := nftables.New()
		if err != nil {
			t.Fatal(err)
		}
		chains, err := conn.ListChains()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		for _, c := range chains {
			rules, err := conn.GetRules(c.Table, c)
			if err != nil {
				t.Fatal(err)
			}
			got[c.Table.Name+"/"+c.Name] = len(rules)
			if c.Name == Table && (c.Policy == nil || *c.Policy != nftables.ChainPolicyDrop) {
				t.Errorf("policy of the fence = %v, want drop", c.Policy)
			}
		}
		for name, want := range map[string]int{"fence/early": 6, "fence/capture": 13, "fence/fence": 9} {
			if got[name] != want {
				t.Errorf("%s has %d rules, want %d", name, got[name], want)
			}
		}
		sets, err := conn.GetSets(chains[0].Table)
		if err != nil || len(sets) != 2 {
			t.Errorf("sets = %v, %v, want two", sets, err)
		}
		if err := s.LoadFence(); !errors.Is(err, unix.EEXIST) {
			t.Errorf("loading it again = %v, want EEXIST", err)
		}
	})
}

func TestTheFenceIsRefusedWithoutPrivilege(t *testing.T) {
	inside(t, func(t *testing.T) {
		rep, err := Setup()
		if err != nil {
			t.Fatal(err)
		}
		s, err := Listen(rep)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var none [2]unix.CapUserData
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		if err := unix.Capset(&hdr, &none[0]); err != nil {
			t.Fatal(err)
		}
		if err := s.LoadFence(); !errors.Is(err, unix.EPERM) {
			t.Errorf("LoadFence without capabilities = %v, want EPERM", err)
		}
	})
}

// accepted waits for a connection on a listener of the floor.
func acceptOn(t *testing.T, fd int) net.Conn {
	t.Helper()
	f := os.NewFile(uintptr(dup(t, fd)), "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.(*net.TCPListener).SetDeadline(time.Now().Add(5 * time.Second))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func dup(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestConnectionsAreCaptured(t *testing.T) {
	inside(t, func(t *testing.T) {
		s, _ := floor(t)
		for _, tt := range []struct {
			addr string
			by   Index
		}{
			{"93.184.216.34:443", TCP4},
			{"10.200.0.77:80", TCP4}, // a neighbour
			{"10.200.0.254:80", TCP4},
			{"169.254.169.254:80", TCP4},
			{"[2606:2800:220:1::1]:443", TCP6},
			{"[fd00:200::77]:80", TCP6},
			{"[::ffff:93.184.216.34]:443", TCP4},
			{"8.8.8.8:53", DNSTCP4},
			{"127.0.0.53:53", DNSTCP4},
			{Proxy + ":53", DNSTCP4},
			{"[2001:4860:4860::8888]:53", DNSTCP6},
			{"[" + Proxy6 + "]:53", DNSTCP6},
			{Proxy + ":" + strconv.Itoa(ProxyPort), HTTP},
		} {
			c, err := net.DialTimeout("tcp", tt.addr, 5*time.Second)
			if err != nil {
				t.Errorf("%s: %v", tt.addr, err)
				continue
			}
			a := acceptOn(t, s[tt.by])
			if a.RemoteAddr().String() != c.LocalAddr().String() {
				t.Errorf("%s: accepted %v, dialled from %v", tt.addr, a.RemoteAddr(), c.LocalAddr())
			}
			c.Close()
		}
	})
}

func TestServicesInsideAreNotCaptured(t *testing.T) {
	inside(t, func(t *testing.T) {
		floor(t)
		for _, addr := range []string{
			"127.0.0.1:8080", "127.9.9.9:8080", Address + ":8080", "[::1]:8080", "[" + Address6 + "]:8080",
			"127.0.0.1:53", "[::1]:53", Address + ":53", "[" + Address6 + "]:53", // a name server of its own, on a low port
		} {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Errorf("%s: %v", addr, err)
				continue
			}
			c, err := net.DialTimeout("tcp", addr, 5*time.Second)
			if err != nil {
				t.Errorf("%s: %v", addr, err)
				continue
			}
			a, err := l.Accept()
			if err != nil {
				t.Errorf("%s: %v", addr, err)
				continue
			}
			a.Close()
			c.Close()
			l.Close()
		}
	})
}

func TestQuestionsAreCapturedAndAnsweredFromTheAskedServer(t *testing.T) {
	inside(t, func(t *testing.T) {
		s, _ := floor(t)
		for _, tt := range []struct {
			server string
			by     Index
			device string
		}{
			{"8.8.8.8:53", DNSUDP4, ""},
			{Proxy + ":53", DNSUDP4, ""},
			{"127.0.0.53:53", DNSUDP4, ""},
			{"127.0.0.11:53", DNSUDP4, ""},
			{"[2001:4860:4860::8888]:53", DNSUDP6, ""},
			{"[" + Proxy6 + "]:53", DNSUDP6, ""},
			{"8.8.8.8:53", DNSUDP4, Interface},
			{"[2001:4860:4860::8888]:53", DNSUDP6, Interface},
		} {
			to, err := net.ResolveUDPAddr("udp", tt.server)
			if err != nil {
				t.Fatal(err)
			}
			c, err := net.ListenUDP("udp", nil) // unconnected: sees who answers
			if err != nil {
				t.Fatal(err)
			}
			if tt.device != "" {
				bindTo(t, c, tt.device)
			}
			if _, err := c.WriteTo([]byte("question"), to); err != nil {
				t.Errorf("%s: %v", tt.server, err)
				continue
			}
			f := os.NewFile(uintptr(dup(t, s[tt.by])), "dns")
			pc, err := net.FilePacketConn(f)
			f.Close()
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 64)
			pc.SetDeadline(time.Now().Add(5 * time.Second))
			n, from, err := pc.ReadFrom(buf)
			if err != nil || string(buf[:n]) != "question" {
				t.Errorf("%s: read %q, %v", tt.server, buf[:n], err)
				continue
			}
			if _, err := pc.WriteTo([]byte("answer"), from); err != nil {
				t.Error(err)
			}
			c.SetDeadline(time.Now().Add(5 * time.Second))
			n, who, err := c.ReadFrom(buf)
			if err != nil || string(buf[:n]) != "answer" || !who.(*net.UDPAddr).IP.Equal(to.IP) || who.(*net.UDPAddr).Port != 53 {
				t.Errorf("%s: %q from %v, %v", tt.server, buf[:n], who, err)
			}
			pc.Close()
			c.Close()
		}
	})
}

func bindTo(t *testing.T, c *net.UDPConn, device string) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) })
	if err != nil {
		t.Fatal(err)
	}
}

func TestEverythingElseIsRefusedAtOnce(t *testing.T) {
	inside(t, func(t *testing.T) {
		floor(t)
		udp := func(addr string) error {
			c, err := net.Dial("udp", addr)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("x"))
			return err
		}
		tcp := func(addr string) error {
			c, err := net.DialTimeout("tcp", addr, 5*time.Second)
			if err == nil {
				c.Close()
			}
			return err
		}
		raw := func(proto int) error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			return unix.Sendto(fd, make([]byte, 64), 0, &unix.SockaddrInet4{Addr: [4]byte{8, 8, 8, 8}})
		}
		for _, tt := range []struct {
			name string
			got  error
			want syscall.Errno
		}{
			{"QUIC", udp("93.184.216.34:443"), unix.EPERM},
			{"QUIC over IPv6", udp("[2606:2800:220:1::1]:443"), unix.EPERM},
			{"NTP to a neighbour", udp("10.200.0.77:123"), unix.EPERM},
			{"straight to the listener", tcp(Address + ":" + strconv.Itoa(CapturePort)), unix.ECONNREFUSED},
			{"straight to the IPv6 listener", tcp("[" + Address6 + "]:" + strconv.Itoa(CapturePort)), unix.ECONNREFUSED},
			{"the listener by another address", tcp("127.0.0.1:" + strconv.Itoa(CapturePort)), unix.ECONNREFUSED},
			{"ICMP even with the capability", raw(unix.IPPROTO_ICMP), unix.EPERM},
			{"an unknown protocol even with the capability", raw(200), unix.EPERM},
			{"multicast", udp("224.0.0.251:5353"), 0},
			{"IPv6 multicast", udp("[ff02::fb%" + Interface + "]:5353"), 0},
		} {
			if tt.want == 0 && tt.got != nil || tt.want != 0 && !errors.Is(tt.got, tt.want) {
				t.Errorf("%s: %v, want %v", tt.name, tt.got, tt.want)
			}
		}
	})
}

func TestANamespaceInUseIsRefused(t *testing.T) {
	inside(t, func(t *testing.T) {
		if _, err := Setup(); err != nil {
			t.Fatal(err)
		}
		if rep, err := Setup(); err == nil {
			t.Errorf("the second Setup = %+v, want an error", rep)
		}
	})
}
