package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/netns"
)

func parse(t *testing.T, said string) (local netip.AddrPort, inode uint64) {
	t.Helper()
	var addr string
	if _, err := fmt.Sscanf(said, "%s %d", &addr, &inode); err != nil {
		t.Fatalf("the program said %q", said)
	}
	local, err := netip.ParseAddrPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return local, inode
}

func TestTheExactSocketIsFoundFromOutside(t *testing.T) {
	outside(t, func(t *testing.T, s *sandbox) {
		d := NewDiag(s.Sockets[netns.Diag])
		for _, tt := range []struct {
			how, addr string
			by        netns.Index
		}{
			{"dial", "93.184.216.34:443", netns.TCP4},
			{"dial", "[2606:2800:220:1::1]:443", netns.TCP6},
			{"mapped", "93.184.216.34:8443", netns.TCP4}, // as Java makes all its sockets
			{"dial", "8.8.8.8:53", netns.DNSTCP4},
			{"bound eth0", "93.184.216.34:80", netns.TCP4},
			{"bound eth0", "[2606:2800:220:1::1]:80", netns.TCP6},
			{"dial", "[fe80::1%eth0]:80", netns.TCP6},
			{"dial", "10.200.0.1:3128", netns.HTTP},
		} {
			name := tt.how + " " + tt.addr
			local, inode := parse(t, s.tell("%s %s", tt.how, tt.addr))
			c := s.accept(tt.by)
			want := unmap(netip.MustParseAddrPort(tt.addr))
			dst, err := OriginalDst(c)
			if tt.by == netns.HTTP {
				if !errors.Is(err, ErrNotCaptured) {
					t.Errorf("%s: original destination %v, %v, want ErrNotCaptured", name, dst, err)
				}
			} else if err != nil || dst != want {
				t.Errorf("%s: original destination %v, %v", name, dst, err)
			}
			remote := netip.MustParseAddrPort(c.RemoteAddr().String())
			if remote != unmap(local) {
				t.Errorf("%s: accepted from %v, dialled from %v", name, remote, local)
			}
			got, err := d.Lookup(remote, want)
			if err != nil || got.Inode != inode || got.UID != 0 || got.State != 1 || got.Cookie == 0 {
				t.Errorf("%s: %+v, %v, want inode %d of uid 0, established", name, got, err, inode)
			}
		}
	})
}

func TestWhatIsNoConnectionIsNotFound(t *testing.T) {
	outside(t, func(t *testing.T, s *sandbox) {
		d := NewDiag(s.Sockets[netns.Diag])
		local, _ := parse(t, s.tell("dial 93.184.216.34:443"))
		other := netip.AddrPortFrom(local.Addr(), local.Port()-1)
		for _, tt := range []struct {
			name          string
			local, remote netip.AddrPort
		}{
			{"another port", other, netip.MustParseAddrPort("93.184.216.34:443")},
			{"another destination", local, netip.MustParseAddrPort("93.184.216.35:443")},
			{"a listener in its place", netip.MustParseAddrPort("127.0.0.1:15001"), netip.MustParseAddrPort("10.200.0.2:1")},
			{"a listener by any address", netip.MustParseAddrPort("10.200.0.1:3128"), netip.MustParseAddrPort("10.200.0.2:0")},
		} {
			if got, err := d.Lookup(tt.local, tt.remote); !errors.Is(err, ErrNoSocket) {
				t.Errorf("%s: %+v, %v, want ErrNoSocket", tt.name, got, err)
			}
		}
		mixed := netip.MustParseAddrPort("[2606:2800:220:1::1]:443")
		if got, err := d.Lookup(local, mixed); err == nil || errors.Is(err, ErrNoSocket) {
			t.Errorf("two families: %+v, %v, want an error", got, err)
		}
		if got, err := d.Lookup(netip.AddrPort{}, netip.AddrPort{}); err == nil {
			t.Errorf("no addresses: %+v, want an error", got)
		}
	})
}

func TestAClosedSocketBelongsToNobody(t *testing.T) {
	outside(t, func(t *testing.T, s *sandbox) {
		d := NewDiag(s.Sockets[netns.Diag])
		local, inode := parse(t, s.tell("dial 93.184.216.34:443"))
		s.tell("drop")
		got, err := d.Lookup(local, netip.MustParseAddrPort("93.184.216.34:443"))
		if err == nil && got.Inode != 0 {
			t.Errorf("after close: %+v, want no inode (was %d)", got, inode)
		}
	})
}

func TestADeniedDestinationIsRefusedAtConnect(t *testing.T) {
	outside(t, func(t *testing.T, s *sandbox) {
		f := NewFence(s.Sockets[netns.Netfilter])
		for _, tt := range []struct {
			addr, other string
			by          netns.Index
		}{
			{"93.184.216.34:443", "93.184.216.34:444", netns.TCP4},
			{"[2606:2800:220:1::1]:443", "[2606:2800:220:1::2]:443", netns.TCP6},
		} {
			dst := netip.MustParseAddrPort(tt.addr)
			for range 2 { // again: its time begins anew
				if err := f.Deny(dst, MaxDenial); err != nil {
					t.Fatal(err)
				}
			}
			if got := s.tell("dial %s", tt.addr); got != "ECONNREFUSED" {
				t.Errorf("%s: %s, want ECONNREFUSED", tt.addr, got)
			}
			parse(t, s.tell("dial %s", tt.other))
			s.accept(tt.by)
			if err := f.Clear(); err != nil {
				t.Fatal(err)
			}
			parse(t, s.tell("dial %s", tt.addr))
			s.accept(tt.by)
		}
		if err := f.Deny(netip.MustParseAddrPort("93.184.216.34:443"), 2*MaxDenial); err == nil {
			t.Error("a time beyond the bound was taken")
		}
		if err := f.Deny(netip.AddrPort{}, time.Second); err == nil {
			t.Error("no address was taken")
		}
	})
}

func TestADenialEnds(t *testing.T) {
	outside(t, func(t *testing.T, s *sandbox) {
		f := NewFence(s.Sockets[netns.Netfilter])
		if err := f.Deny(netip.MustParseAddrPort("93.184.216.34:443"), 50*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if got := s.tell("dial 93.184.216.34:443"); got != "ECONNREFUSED" {
				parse(t, got)
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("still refused")
			}
		}
	})
}

func TestRefusedPacketsAreReported(t *testing.T) {
	outside(t, func(t *testing.T, s *sandbox) {
		if err := NewFence(s.Sockets[netns.Netfilter]).Deny(netip.MustParseAddrPort("[2606:2800:220:1::1]:443"), MaxDenial); err != nil {
			t.Fatal(err)
		}
		log, err := NewLog(s.Sockets[netns.Log])
		if err != nil {
			t.Fatal(err)
		}
		s.Sockets[netns.Log] = -1
		defer log.Close()
		for _, tt := range []struct {
			do, says string
			want     Refusal
		}{
			{"send 93.184.216.34:443", "EPERM", Refusal{Stray, unix.IPPROTO_UDP, netip.AddrPort{}, netip.MustParseAddrPort("93.184.216.34:443")}},
			{"send [2606:2800:220:1::2]:123", "EPERM", Refusal{Stray, unix.IPPROTO_UDP, netip.AddrPort{}, netip.MustParseAddrPort("[2606:2800:220:1::2]:123")}},
			{"dial [2606:2800:220:1::1]:443", "ECONNREFUSED", Refusal{Denied, unix.IPPROTO_TCP, netip.AddrPort{}, netip.MustParseAddrPort("[2606:2800:220:1::1]:443")}},
		} {
			if said := s.tell("%s", tt.do); said != tt.says {
				t.Errorf("%s: %s, want %s", tt.do, said, tt.says)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			var got []Refusal
			err := log.Run(ctx, func(r Refusal) {
				got = append(got, r)
				cancel()
			})
			if err != nil || len(got) != 1 {
				t.Fatalf("%s: %v, %v", tt.do, got, err)
			}
			if !strings.HasPrefix(got[0].From.String(), "10.200.0.2:") && !strings.HasPrefix(got[0].From.String(), "[fd00:200::2]:") {
				t.Errorf("%s: from %v", tt.do, got[0].From)
			}
			got[0].From = netip.AddrPort{}
			if got[0] != tt.want {
				t.Errorf("%s: %+v, want %+v", tt.do, got[0], tt.want)
			}
		}
	})
}

func TestAFullSetIsAnErrorWithoutConsequence(t *testing.T) {
	outside(t, func(t *testing.T, s *sandbox) {
		f := NewFence(s.Sockets[netns.Netfilter])
		var err error
		n := 0
		for ; n < 2*netns.MaxDenied && err == nil; n++ {
			err = f.Deny(netip.AddrPortFrom(netip.MustParseAddr("93.184.216.34"), uint16(1000+n)), MaxDenial)
		}
		if !errors.Is(err, unix.ENFILE) {
			t.Errorf("after %d destinations: %v, want ENFILE", n, err)
		}
		if got := s.tell("dial 93.184.216.34:1000"); got != "ECONNREFUSED" {
			t.Errorf("an earlier one: %s, want ECONNREFUSED", got)
		}
		parse(t, s.tell("dial 93.184.216.34:80"))
		s.accept(netns.TCP4)
	})
}

func TestAFloodOfRefusalsIsBounded(t *testing.T) {
	outside(t, func(t *testing.T, s *sandbox) {
		log, err := NewLog(s.Sockets[netns.Log])
		if err != nil {
			t.Fatal(err)
		}
		s.Sockets[netns.Log] = -1
		defer log.Close()
		const sent = 500
		for range sent {
			if said := s.tell("send 93.184.216.34:443"); said != "EPERM" {
				t.Fatalf("the program said %s", said)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		n := 0
		if err := log.Run(ctx, func(Refusal) { n++ }); err != nil {
			t.Fatal(err)
		}
		if n == 0 || n >= sent {
			t.Errorf("%d of %d refusals reported, want some and not all", n, sent)
		}
	})
}
