package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/relay"
)

// Bounds of relays that wait for their supervisor.
const (
	maxPending    = 256
	maxPendingBox = 32
	sessionWait   = 15 * time.Second
	relayWait     = 10 * time.Second
)

// relays matches the streams that supervisors open with those who asked.
type relays struct {
	mu      sync.Mutex
	pending map[string]*pendingRelay // by channel id
	perBox  map[string]int
}

type pendingRelay struct {
	box     string
	session string
	ready   chan io.ReadWriteCloser
	failed  chan error
}

func newRelays() *relays {
	return &relays{pending: map[string]*pendingRelay{}, perBox: map[string]int{}}
}

func (r *relays) add(channel, box, session string) (*pendingRelay, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pending) >= maxPending || r.perBox[box] >= maxPendingBox {
		return nil, fault.New(fault.Exhausted, "too many relays wait for their supervisor")
	}
	p := &pendingRelay{box: box, session: session, ready: make(chan io.ReadWriteCloser, 1), failed: make(chan error, 1)}
	r.pending[channel] = p
	r.perBox[box]++
	return p, nil
}

// take removes a pending relay; nil if there is none of that sandbox.
func (r *relays) take(channel, box string) *pendingRelay {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pending[channel]
	if p == nil || p.box != box {
		return nil
	}
	delete(r.pending, channel)
	if r.perBox[box]--; r.perBox[box] == 0 {
		delete(r.perBox, box)
	}
	return p
}

func (r *relays) fail(channel, box string, err error) {
	if p := r.take(channel, box); p != nil {
		p.failed <- err
	}
}

// drop fails what waits for a session that has ended.
func (r *relays) drop(box, session string) {
	r.mu.Lock()
	var lost []string
	for channel, p := range r.pending {
		if p.box == box && p.session == session {
			lost = append(lost, channel)
		}
	}
	r.mu.Unlock()
	for _, channel := range lost {
		r.fail(channel, box, fault.New(fault.Unavailable, "supervisor session not connected"))
	}
}

// openRelay asks the supervisor of b for a stream. Target and service are
// those of RelayOpen.
func (g *Gateway) openRelay(ctx context.Context, b *box, open *openshellv1.RelayOpen) (io.ReadWriteCloser, error) {
	s, err := g.liveSession(ctx, b)
	if err != nil {
		return nil, err
	}
	open.ChannelId = newID()
	p, err := g.relays.add(open.GetChannelId(), b.id, s.id)
	if err != nil {
		return nil, err
	}
	if err := s.send(&openshellv1.GatewayMessage{Payload: &openshellv1.GatewayMessage_RelayOpen{RelayOpen: open}}); err != nil {
		g.relays.take(open.GetChannelId(), b.id)
		return nil, fault.New(fault.Unavailable, "supervisor relay failed: the session broke").Cause(err)
	}
	timer := time.NewTimer(relayWait)
	defer timer.Stop()
	var failure error
	select {
	case rw := <-p.ready:
		return rw, nil
	case failure = <-p.failed:
		return nil, failure
	case <-timer.C:
		failure = fault.New(fault.DeadlineExceeded, "relay open timed out")
	case <-ctx.Done():
		failure = ctx.Err()
	}
	if g.relays.take(open.GetChannelId(), b.id) == nil {
		select { // it came at the last moment: nobody wants it any more
		case rw := <-p.ready:
			rw.Close()
		case <-p.failed:
		}
	}
	return nil, failure
}

// liveSession waits a while for a supervisor that is about to connect.
func (g *Gateway) liveSession(ctx context.Context, b *box) (*session, error) {
	if s := b.session(); s != nil {
		return s, nil
	}
	ctx, cancel := context.WithTimeout(ctx, sessionWait)
	defer cancel()
	var s *session
	_, err := b.wait(ctx, func(r *record) bool {
		s = b.session()
		return s != nil || usable(r) != nil && r.s.Life.Settled()
	})
	if s != nil {
		return s, nil
	}
	if err != nil && fault.KindOf(err) == fault.NotFound {
		return nil, err
	}
	return nil, fault.New(fault.Unavailable, "supervisor session not connected")
}

// RelayStream implements the supervisor's half of a relay.
func (g *Gateway) RelayStream(ctx context.Context, stream *connect.BidiStream[openshellv1.RelayFrame, openshellv1.RelayFrame]) error {
	first, err := stream.Receive()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return invalid("", "empty RelayStream")
		}
		return err
	}
	deliver, err := g.taker(ctx, first.GetInit().GetChannelId())
	if err != nil {
		return err
	}
	e := &endpoint{done: make(chan struct{}), control: control(ctx)}
	if !deliver(relay.Stream(
		func() ([]byte, error) {
			m, err := stream.Receive()
			if err != nil {
				return nil, err
			}
			if _, ok := m.GetPayload().(*openshellv1.RelayFrame_Data); !ok {
				return nil, invalid("", "a relay frame after the first must be data")
			}
			return m.GetData(), nil
		},
		func(b []byte) error {
			return e.during(func() error {
				return stream.Send(&openshellv1.RelayFrame{Payload: &openshellv1.RelayFrame_Data{Data: b}})
			})
		},
		e.close)) {
		return fault.New(fault.Exhausted, "enough spare relays are kept")
	}
	select {
	case <-e.done:
	case <-ctx.Done():
	case <-g.base.Done():
	}
	e.settle()
	return nil
}

// taker finds out who gets a stream that a supervisor opened.
func (g *Gateway) taker(ctx context.Context, channel string) (func(io.ReadWriteCloser) bool, error) {
	id := string(principal(ctx).SandboxID)
	if channel == relay.SpareChannel {
		b, err := g.fleet.byID(id)
		if err != nil {
			return nil, err
		}
		if s := b.session(); s != nil && s.instance == principal(ctx).InstanceID {
			return s.park, nil
		}
	} else if p := g.relays.take(channel, id); p != nil {
		return func(rw io.ReadWriteCloser) bool { p.ready <- rw; return true }, nil
	}
	return nil, fault.New(fault.NotFound, "unknown or expired relay channel")
}

// endpoint keeps a handler's stream alive for the goroutine that uses it and
// makes sure that nobody writes after the handler returned.
type endpoint struct {
	done    chan struct{}
	once    sync.Once
	control *http.ResponseController

	mu   sync.Mutex // held while sending
	over bool       // guarded by mu
}

func (e *endpoint) during(send func() error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over {
		return io.ErrClosedPipe
	}
	return send()
}

func (e *endpoint) close() error {
	e.once.Do(func() { close(e.done) })
	return nil
}

// settle ends all use of the stream: a sender that hangs on a peer which does
// not read gets a moment, then is cut off.
func (e *endpoint) settle() {
	cut := time.AfterFunc(time.Second, func() {
		if e.control != nil {
			_ = e.control.SetWriteDeadline(time.Now())
		}
	})
	e.mu.Lock()
	e.over = true
	e.mu.Unlock()
	cut.Stop()
	if e.control != nil {
		_ = e.control.SetReadDeadline(time.Now())
	}
}
