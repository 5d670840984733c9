package supervisor

import (
	"context"
	"net/netip"
	"os"
	"time"

	"openshell.dev/openshell/internal/egress"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/netns"
	"openshell.dev/openshell/internal/sockdiag"
)

// openNetwork takes over the sandbox's sockets and serves them. It returns
// when everything that a program could send is answered.
func (s *Sandbox) openNetwork(ctx context.Context) error {
	select {
	case f, ok := <-s.sockets:
		if !ok {
			return s.gone()
		}
		sockets, m, err := unpackSockets(f)
		if err != nil {
			return err
		}
		s.record.Interface = m.Device
		s.record.Notes = append(s.record.Notes, m.Notes...)
		err = s.serve(&sockets)
		s.clock.lap("network")
		return err
	case <-ctx.Done():
		return fault.New(fault.DeadlineExceeded, "the sandbox's network was not ready after %s", startLimit).Cause(ctx.Err())
	}
}

func (s *Sandbox) serve(sockets *netns.Sockets) error {
	own := &owners{sb: s, diag: sockdiag.NewDiag(sockets[netns.Diag])}
	source, err := takeOver(sockets, own)
	if err != nil {
		sockets.Close()
		return err
	}
	s.proxy = egress.New(egress.Options{
		Policy: s.rules.compiled, Revision: uint64(s.spec.PolicyVersion), Pins: s.pins, Events: s.events, Log: s.log,
		HostAddress: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Hostname: s.hostname(), Self: netip.MustParseAddr(netns.Address),
		Own: []netip.Prefix{netip.MustParsePrefix("10.200.0.0/24"), netip.MustParsePrefix("fd00:200::/64")},
	})
	serving, cancel := context.WithCancel(context.Background())
	s.finish.Go(func() { _ = s.proxy.Serve(serving, source) })
	if err := s.watchStrays(serving, sockets); err != nil {
		cancel()
		return err
	}
	s.onClose(func() {
		drain, stop := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer stop()
		cancel()
		s.proxy.Close(drain)
		sockets.Close()
	})
	return nil
}

// Traffic counts what the proxy did.
func (s *Sandbox) Traffic() egress.Stats {
	if s.proxy == nil {
		return egress.Stats{}
	}
	return s.proxy.Stats()
}

// takeOver makes a source of the listeners; the netlink sockets stay ours.
func takeOver(sockets *netns.Sockets, own egress.Owners) (*egress.Redirect, error) {
	r := &egress.Redirect{Original: sockdiag.OriginalDst, Owners: own}
	for i := netns.HTTP; i <= netns.DNSTCP6; i++ {
		if sockets[i] < 0 {
			continue
		}
		f := os.NewFile(uintptr(sockets[i]), "socket of the floor")
		sockets[i] = -1
		if i == netns.DNSUDP4 || i == netns.DNSUDP6 {
			c, err := egress.PacketConn(f)
			if err != nil {
				return nil, err
			}
			r.DNS = append(r.DNS, c)
			continue
		}
		l, err := egress.Listener(f)
		if err != nil {
			return nil, err
		}
		switch i {
		case netns.HTTP:
			r.Explicit = append(r.Explicit, l)
		case netns.TCP4, netns.TCP6:
			r.Caught = append(r.Caught, l)
		default:
			r.DNSTCP = append(r.DNSTCP, l)
		}
	}
	return r, nil
}
