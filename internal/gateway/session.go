package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/model"
	"openshell.dev/openshell/internal/relay"
)

// session is the live connection of one supervisor.
type session struct {
	id       string
	instance string
	epoch    uint64
	push     bool
	done     chan struct{} // closed when the session ends

	end    sync.Once
	why    atomic.Pointer[string]
	heard  atomic.Int64            // unix nanoseconds of the last message
	spares chan io.ReadWriteCloser // streams that wait for the next relay

	mu     sync.Mutex
	stream *connect.BidiStream[openshellv1.SupervisorMessage, openshellv1.GatewayMessage] // Send guarded by mu; nil after the handler
}

// send writes a message; it fails once the session is over.
func (s *session) send(m *openshellv1.GatewayMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stream == nil {
		return fault.New(fault.Unavailable, "supervisor session not connected")
	}
	return s.stream.Send(m)
}

// close ends the session; the first reason counts.
func (s *session) close(why string) {
	s.end.Do(func() {
		s.why.Store(&why)
		close(s.done)
	})
}

// park keeps a spare stream; false means there are enough, or the session is
// over.
func (s *session) park(rw io.ReadWriteCloser) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stream == nil {
		return false
	}
	select {
	case s.spares <- rw:
		return true
	default:
		return false
	}
}

// spare returns a stream that is open already, or nil.
func (s *session) spare() io.ReadWriteCloser {
	select {
	case rw := <-s.spares:
		return rw
	default:
		return nil
	}
}

// drop ends a box's session if it has one.
func (f *fleet) drop(b *box, why string) {
	if s := b.session(); s != nil {
		s.close(why)
	}
}

func (f *fleet) closeSessions(why string) {
	for _, b := range f.all() {
		f.drop(b, why)
	}
}

// ConnectSupervisor implements the supervisor's session.
func (g *Gateway) ConnectSupervisor(ctx context.Context, stream *connect.BidiStream[openshellv1.SupervisorMessage, openshellv1.GatewayMessage]) error {
	first, err := stream.Receive()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return invalid("", "stream closed before hello")
		}
		return err
	}
	hello := first.GetHello()
	if hello == nil {
		return invalid("", "expected SupervisorHello")
	}
	b, err := g.ownSandbox(ctx, hello.GetSandboxId())
	if err != nil {
		return err
	}
	if p := principal(ctx); hello.GetInstanceId() == "" || (p.InstanceID != "" && p.InstanceID != hello.GetInstanceId()) {
		return invalid("instance_id", "instance_id is not the one the token was made for")
	}
	s := &session{id: newID(), instance: hello.GetInstanceId(), epoch: hello.GetConnectionEpoch(), push: hello.GetSupportsConfigPush(),
		done: make(chan struct{}), stream: stream, spares: make(chan io.ReadWriteCloser, 2)}
	s.heard.Store(time.Now().UnixNano())
	// Others may use the session from the moment it is entered; what they
	// send waits until the supervisor was told that it is accepted.
	s.mu.Lock()
	if reason := g.fleet.enter(ctx, b, s, stream.RequestHeader().Get(relay.HeaderHostKey)); reason != "" {
		s.mu.Unlock()
		return stream.Send(&openshellv1.GatewayMessage{Payload: &openshellv1.GatewayMessage_SessionRejected{
			SessionRejected: &openshellv1.SessionRejected{Reason: reason}}})
	}
	defer g.fleet.leave(b, s)
	err = stream.Send(&openshellv1.GatewayMessage{Payload: &openshellv1.GatewayMessage_SessionAccepted{
		SessionAccepted: &openshellv1.SessionAccepted{SessionId: s.id, HeartbeatInterval: durationpb.New(g.opts.Heartbeat), ConfigPushEnabled: s.push}}})
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if s.push {
		g.pushPolicy(ctx, b, s)
	}
	return g.converse(ctx, b, s)
}

// enter makes s the session of b. It returns why not, or the empty string.
func (f *fleet) enter(ctx context.Context, b *box, s *session, hostKey string) string {
	b.mu.Lock()
	old := b.sess
	if old != nil && old.instance == s.instance && old.epoch > s.epoch {
		b.mu.Unlock()
		return "a newer connection of this supervisor exists"
	}
	b.mu.Unlock()
	ok := false
	if _, err := f.update(ctx, b, func(r *record) (bool, error) {
		if ok = r.s.Life.Connected(f.g.now(), s.instance); !ok {
			return false, nil
		}
		if hostKey != "" && len(hostKey) < 128 {
			r.s.HostKey = hostKey
		}
		r.s.Activated, r.s.ConfigError = true, ""
		if r.s.Loaded == 0 && r.s.Policy == 1 {
			r.s.Loaded = 1 // what it started with; a newer one is pushed and reported
		}
		b.sess = s // b.mu is held
		return true, nil
	}); err != nil {
		f.g.log.Error("session not stored", "sandbox", b.id, "err", fault.Detail(err))
		return "the gateway cannot store the session now"
	}
	if !ok {
		return relay.RunOver
	}
	if old != nil {
		old.close("superseded by a newer session")
	}
	f.g.log.LogAttrs(ctx, slog.LevelInfo, "supervisor connected", slog.String("sandbox", b.id), slog.String("instance", s.instance))
	return ""
}

// leave takes s away and tells the lifecycle.
func (f *fleet) leave(b *box, s *session) {
	s.close("the supervisor's connection was lost")
	s.mu.Lock()
	s.stream = nil
	s.mu.Unlock()
	for rw := s.spare(); rw != nil; rw = s.spare() {
		rw.Close()
	}
	b.mu.Lock()
	current := b.sess == s
	if current {
		b.sess = nil
	}
	b.mu.Unlock()
	f.g.relays.drop(b.id, s.id)
	if !current || f.g.base.Err() != nil {
		return
	}
	f.g.log.Info("supervisor session ended", "sandbox", b.id, "err", *s.why.Load())
	if _, err := f.life(context.Background(), b, func(l *model.Lifecycle) bool {
		return l.Disconnected(f.g.now(), s.instance) && f.deadline(l)
	}); err != nil && fault.KindOf(err) != fault.NotFound {
		f.g.log.Error("lost session not stored", "sandbox", b.id, "err", fault.Detail(err))
	}
}

// deadline gives a supervisor that is away some time to come back.
func (f *fleet) deadline(l *model.Lifecycle) bool {
	l.Deadline = f.g.now().Add(f.g.opts.StartLimit)
	return true
}

// converse answers the supervisor until one side is done.
func (g *Gateway) converse(ctx context.Context, b *box, s *session) error {
	received := make(chan error, 1)
	stream := s.stream
	var reading sync.WaitGroup
	reading.Add(1)
	go func() { // ended by the read deadline below
		defer reading.Done()
		for {
			m, err := stream.Receive()
			if err != nil {
				received <- err
				return
			}
			s.heard.Store(time.Now().UnixNano())
			g.hear(ctx, b, m)
		}
	}()
	beat := time.NewTicker(g.opts.Heartbeat)
	defer beat.Stop()
	defer func() {
		if c := control(ctx); c != nil {
			_ = c.SetReadDeadline(time.Now())
			reading.Wait()
		}
	}()
	for {
		select {
		case err := <-received:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-s.done:
			return fault.New(fault.Unavailable, "%s", *s.why.Load())
		case <-ctx.Done():
			return ctx.Err()
		case <-beat.C:
			if silent := time.Since(time.Unix(0, s.heard.Load())); silent > 4*g.opts.Heartbeat {
				s.close("the supervisor was silent for too long")
				continue
			}
			if err := s.send(&openshellv1.GatewayMessage{Payload: &openshellv1.GatewayMessage_Heartbeat{Heartbeat: &openshellv1.GatewayHeartbeat{}}}); err != nil {
				return err
			}
		}
	}
}

// hear takes in one message of the supervisor.
func (g *Gateway) hear(ctx context.Context, b *box, m *openshellv1.SupervisorMessage) {
	switch p := m.GetPayload().(type) {
	case *openshellv1.SupervisorMessage_RelayOpenResult:
		if r := p.RelayOpenResult; !r.GetSuccess() {
			g.relays.fail(r.GetChannelId(), b.id, fault.New(fault.Unavailable, "supervisor relay failed: %s", clip(r.GetError())))
		}
	case *openshellv1.SupervisorMessage_RelayClose:
		g.relays.fail(p.RelayClose.GetChannelId(), b.id, fault.New(fault.Unavailable, "supervisor relay failed: %s", clip(p.RelayClose.GetReason())))
	case *openshellv1.SupervisorMessage_ConfigUpdateResult:
		g.configResult(ctx, b, p.ConfigUpdateResult)
	}
}

func clip(s string) string {
	if len(s) > 512 {
		return s[:512]
	}
	return s
}

// ownSandbox returns the sandbox that the calling supervisor belongs to, if
// that is the one it names.
func (g *Gateway) ownSandbox(ctx context.Context, id string) (*box, error) {
	if id == "" {
		return nil, invalid("sandbox_id", "sandbox_id is required")
	}
	if p := principal(ctx); string(p.SandboxID) != id {
		return nil, fault.New(fault.PermissionDenied, "cross-sandbox access denied: principal does not own this sandbox")
	}
	return g.fleet.byID(id)
}
