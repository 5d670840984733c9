package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAddressesAreTriedBesideOneAnother(t *testing.T) {
	addrs := func(in ...string) (out []netip.AddrPort) {
		for _, s := range in {
			out = append(out, netip.AddrPortFrom(mustAddr(s), 443))
		}
		return out
	}
	refused := errors.New("refused")
	for _, row := range []struct {
		name  string
		addrs []netip.AddrPort
		hang  []string // never answer
		fail  []string // refuse at once
		want  string
		after time.Duration
		tried int
	}{
		{"the first answers", addrs("192.0.2.1", "192.0.2.2"), nil, nil, "192.0.2.1", 0, 1},
		{"the first refuses", addrs("192.0.2.1", "192.0.2.2"), nil, []string{"192.0.2.1"}, "192.0.2.2", 0, 2},
		{"IPv6 leads nowhere", addrs("2001:db8::1", "2001:db8::2", "192.0.2.1"), []string{"2001:db8::1", "2001:db8::2"}, nil, "192.0.2.1", stagger, 2},
		{"only the last answers", addrs("192.0.2.1", "192.0.2.2", "192.0.2.3"), []string{"192.0.2.1", "192.0.2.2"}, nil, "192.0.2.3", 2 * stagger, 3},
		{"none answers", addrs("192.0.2.1", "192.0.2.2"), []string{"192.0.2.1", "192.0.2.2"}, nil, "", 10*time.Second + stagger, 2},
		{"all refuse", addrs("192.0.2.1", "192.0.2.2"), nil, []string{"192.0.2.1", "192.0.2.2"}, "", 0, 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tried := make(chan netip.AddrPort, 10)
				p := New(Options{Dial: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
					tried <- to
					for _, h := range row.hang {
						if to.Addr() == mustAddr(h) {
							<-ctx.Done()
							return nil, ctx.Err()
						}
					}
					for _, f := range row.fail {
						if to.Addr() == mustAddr(f) {
							return nil, refused
						}
					}
					a, b := net.Pipe()
					_ = b.Close()
					return a, nil
				}})
				start := time.Now()
				conn, to, err := p.race(t.Context(), interleave(row.addrs))
				got := ""
				if err == nil {
					got = to.Addr().String()
					_ = conn.Close()
				}
				if got != row.want || time.Since(start) != row.after || len(tried) != row.tried {
					t.Errorf("%q, %v after %v and %d attempts, want %q after %v and %d", got, err, time.Since(start), len(tried), row.want, row.after, row.tried)
				}
			})
		})
	}
	var got []string
	for _, a := range interleave(addrs("2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1")) {
		got = append(got, a.Addr().String())
	}
	if diff := cmp.Diff([]string{"2001:db8::1", "192.0.2.1", "2001:db8::2", "2001:db8::3"}, got); diff != "" {
		t.Error(diff)
	}
}
