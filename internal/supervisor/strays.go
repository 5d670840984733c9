package supervisor

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"openshell.dev/openshell/internal/event"
	"openshell.dev/openshell/internal/launch"
	"openshell.dev/openshell/internal/netns"
	"openshell.dev/openshell/internal/sockdiag"
)

// watchStrays reports what no listener can take: datagrams and other
// protocols, which the fence refuses and logs. It takes over the log socket.
func (s *Sandbox) watchStrays(ctx context.Context, sockets *netns.Sockets) error {
	log, err := sockdiag.NewLog(sockets[netns.Log])
	if err != nil {
		return err
	}
	sockets[netns.Log] = -1
	seen := &strays{sink: s.events, last: map[string]time.Time{}}
	s.finish.Go(func() { _ = log.Run(ctx, seen.report) })
	context.AfterFunc(ctx, func() { _ = log.Close() })
	return nil
}

// strays turns refused packets into events, one for each destination in a
// while: a program that keeps trying says nothing new.
type strays struct {
	sink event.Sink
	mu   sync.Mutex
	last map[string]time.Time // destination to when it was reported
}

const (
	strayPause = 10 * time.Second
	maxStrays  = 1024
)

// protocols are the IP protocol numbers that programs use (IANA).
var protocols = map[uint8]string{1: "icmp", 17: "udp", 58: "icmp6", 132: "sctp"}

func (s *strays) report(r sockdiag.Refusal) {
	if r.Why != sockdiag.Stray || r.To == netip.AddrPortFrom(netip.AddrFrom4(launch.ProbeAddress), launch.ProbePort) {
		return // the launcher's own try, which must be refused
	}
	name := protocols[r.Protocol]
	if name == "" {
		name = fmt.Sprintf("ip-%d", r.Protocol)
	}
	key := name + r.To.String()
	now := time.Now()
	s.mu.Lock()
	if now.Sub(s.last[key]) < strayPause {
		s.mu.Unlock()
		return
	}
	if len(s.last) >= maxStrays {
		clear(s.last)
	}
	s.last[key] = now
	s.mu.Unlock()
	s.sink.Emit(event.Event{
		Class: event.Network, Activity: event.NetOpen, Severity: event.Medium, Status: event.Failure,
		Action: event.Denied, Disposition: event.Blocked, Protocol: name, Rule: "-", Engine: "fence",
		Dst:     &event.Endpoint{IP: r.To.Addr().String(), Port: r.To.Port()},
		Message: name + " denied " + r.To.String(),
		Detail:  "only TCP and DNS can leave a sandbox",
	})
}
