package netns

import (
	"errors"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/kerneltest"
	"openshell.dev/openshell/internal/netlink"
)

// inside runs body as pid 1 of fresh namespaces, as an ordinary account.
func inside(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	kerneltest.Require(t, kerneltest.NetAdmin)
	kerneltest.Child{
		Ordinary: true, Ambient: true,
		Clone: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
	}.Run(t, body)
}

// insideAs is inside with an id of its own instead of root's.
func insideAs(t *testing.T, id int, body func(t *testing.T)) {
	t.Helper()
	kerneltest.Require(t, kerneltest.NetAdmin)
	kerneltest.Child{Ordinary: true, Ambient: true, InsideID: id, Clone: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET}.Run(t, body)
}

// floor does everything the launcher does and closes the sockets with the test.
func floor(t *testing.T) (Sockets, Report) {
	t.Helper()
	rep, err := Setup()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Listen(rep)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.LoadFence(); err != nil {
		t.Fatal(err)
	}
	return s, rep
}

func TestProgramsSeeLoAndOneInterface(t *testing.T) {
	inside(t, func(t *testing.T) {
		rep, err := Setup()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", rep)
		ifs, err := net.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range ifs {
			addrs, _ := i.Addrs()
			state, _ := os.ReadFile("/sys/class/net/" + i.Name + "/operstate")
			t.Logf("%+v %v %s", i, addrs, state)
		}
		if len(ifs) != 2 || ifs[0].Name != "lo" || ifs[1].Name != Interface {
			t.Fatalf("interfaces = %v", ifs)
		}
		const up = net.FlagUp | net.FlagRunning
		if got := ifs[0].Flags; got&up != up || got&net.FlagLoopback == 0 {
			t.Errorf("lo is %v", got)
		}
		if got := ifs[1].Flags; got&up != up || got&net.FlagMulticast == 0 || got&net.FlagBroadcast == 0 || got&net.FlagLoopback != 0 {
			t.Errorf("%s is %v", Interface, got)
		}
		for i, want := range [][]string{{"127.0.0.1/8", "::1/128"}, {Address + "/24", Address6 + "/64"}} {
			addrs, err := ifs[i].Addrs()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range addrs {
				got = append(got, a.String())
			}
			if !slices.Equal(got, want) {
				t.Errorf("addresses of %s = %v, want %v", ifs[i].Name, got, want)
			}
		}
	})
}

func TestTheFloorWithAnIDOfItsOwn(t *testing.T) {
	insideAs(t, 1000, func(t *testing.T) {
		_, rep := floor(t)
		if len(rep.Notes) != 0 || !rep.IPv6 {
			t.Errorf("report = %+v, want nothing left out", rep)
		}
	})
}

func TestEachKindOfInterface(t *testing.T) {
	for _, k := range kinds {
		if k.present {
			continue // the same kinds again
		}
		t.Run(k.name, func(t *testing.T) {
			inside(t, func(t *testing.T) {
				fd, err := netlink.Open(unix.NETLINK_ROUTE)
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(fd)
				rep := Report{IPv6: true}
				err = makeInterface(fd, []kind{k}, &rep)
				if errors.Is(err, errNoKind) {
					t.Skipf("needs interfaces of kind %s", k.name)
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := verify(fd, &rep); err != nil || rep.Kind != k.name || len(rep.Others) != 0 {
					t.Errorf("%+v, %v", rep, err)
				}
				s, err := Listen(rep)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if err := s.LoadFence(); err != nil {
					t.Fatal(err)
				}
				for addr, by := range map[string]Index{"93.184.216.34:443": TCP4, "[2606:2800:220:1::1]:443": TCP6} {
					c, err := net.DialTimeout("tcp", addr, 5*time.Second)
					if err != nil {
						t.Errorf("%s: %v", addr, err)
						continue
					}
					acceptOn(t, s[by])
					c.Close()
				}
			})
		})
	}
}

func TestAKindThatIsNotThereGivesWayToTheNext(t *testing.T) {
	inside(t, func(t *testing.T) {
		fd, err := netlink.Open(unix.NETLINK_ROUTE)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		rep := Report{IPv6: true}
		unknown := kind{name: "nosuchkind"}
		if err := makeInterface(fd, []kind{unknown}, &rep); !errors.Is(err, errNoKind) {
			t.Errorf("an unknown kind alone: %v", err)
		}
		if err := makeInterface(fd, append([]kind{unknown}, kinds...), &rep); err != nil || rep.Kind == "" || rep.Kind == "veth" {
			t.Errorf("%+v, %v, want a known kind", rep, err)
		}
	})
}

func TestWithoutIPv6(t *testing.T) {
	insideAs(t, 0, func(t *testing.T) {
		for _, conf := range []string{"all", "default"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+conf+"/disable_ipv6", []byte("1"), 0); err != nil {
				t.Fatal(err)
			}
		}
		s, rep := floor(t)
		if rep.IPv6 || len(rep.Notes) != 1 || s[TCP6] != -1 || s[DNSUDP6] != -1 || s[DNSTCP6] != -1 {
			t.Errorf("report = %+v, sockets %v", rep, s)
		}
		if c, err := net.DialTimeout("tcp", "93.184.216.34:443", 5*time.Second); err != nil {
			t.Error(err)
		} else {
			acceptOn(t, s[TCP4])
			c.Close()
		}
		if _, err := net.DialTimeout("tcp", "[2606:2800:220:1::1]:443", 5*time.Second); err == nil {
			t.Error("a connection by IPv6")
		}
	})
}

func TestMulticastIsHeardInside(t *testing.T) {
	inside(t, func(t *testing.T) {
		floor(t)
		eth, err := net.InterfaceByName(Interface)
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range []string{"224.0.0.251:5353", "[ff02::fb%" + Interface + "]:5353"} {
			to, err := net.ResolveUDPAddr("udp", group)
			if err != nil {
				t.Fatal(err)
			}
			ear, err := net.ListenMulticastUDP("udp", eth, to)
			if err != nil {
				t.Fatal(err)
			}
			mouth, err := net.DialUDP("udp", nil, to)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := mouth.Write([]byte("hello")); err != nil {
				t.Errorf("%s: %v", group, err)
			}
			buf := make([]byte, 16)
			ear.SetDeadline(time.Now().Add(5 * time.Second))
			n, _, err := ear.ReadFrom(buf)
			if err != nil || string(buf[:n]) != "hello" {
				t.Errorf("%s: heard %q, %v", group, buf[:n], err)
			}
			ear.Close()
			mouth.Close()
		}
	})
}

func TestJudge(t *testing.T) {
	lo := link{"lo", upAndRunning}
	eth := link{Interface, upAndRunning | unix.IFF_MULTICAST}
	for _, tt := range []struct {
		name   string
		kind   string
		links  []link
		ready  bool
		refuse bool
	}{
		{"both", "bridge", []link{lo, eth}, true, false},
		{"a tunnel of the kernel's, down", "bridge", []link{lo, {"sit0", 0}, eth}, true, false},
		{"another that is up", "bridge", []link{lo, eth, {"eth1", unix.IFF_UP}}, false, true},
		{"the peer of a pair", "veth", []link{lo, eth, {peerName, unix.IFF_UP}}, true, false},
		{"a peer without a pair", "bridge", []link{lo, eth, {peerName, unix.IFF_UP}}, false, true},
		{"not yet running", "veth", []link{lo, {Interface, unix.IFF_UP | unix.IFF_MULTICAST}}, false, false},
		{"no multicast", "dummy", []link{lo, {Interface, upAndRunning}}, false, false},
		{"no lo", "bridge", []link{eth}, false, false},
		{"nothing", "bridge", nil, false, false},
	} {
		rep := Report{Kind: tt.kind}
		ready, err := judge(tt.links, &rep)
		if ready != tt.ready || (err != nil) != tt.refuse {
			t.Errorf("%s: %v, %v", tt.name, ready, err)
		}
	}
}

func FuzzParseLink(f *testing.F) {
	f.Add(append(ifinfo(2, 1, 0), 9, 0, 3, 0, 'e', 't', 'h', '0', 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := parseLink(b); err == nil && len(l.name) > len(b) {
			t.Errorf("name %q from %d bytes", l.name, len(b))
		}
	})
}

// Whatever is no batch with one acknowledgement is refused, and an
// acknowledged number that is waited for is in the batch.
func FuzzSpan(f *testing.F) {
	f.Add(fence)
	f.Add(fence[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		first, last, err := span(b)
		if err != nil {
			return
		}
		if first == 0 || len(b) < netlink.HeaderLen {
			t.Errorf("span = %d, %d of %d bytes", first, last, len(b))
		}
	})
}
