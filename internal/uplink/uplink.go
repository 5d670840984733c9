// Package uplink is a supervisor's connection to its gateway.
//
// It owns the session (hello, heartbeats, reconnecting), the relays that the
// gateway asks for, and the reports that must arrive: the end of the main
// process, whether a policy is in force, log lines. It does nothing to the
// sandbox itself but through session.Box. It never gives up by itself: that
// the gateway has been away for too long is told to the caller, who decides.
// Only cmd/openshell-supervisor uses it.
package uplink

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/api/gen/openshellv1/openshellv1connect"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/policyproto"
	"openshell.dev/openshell/internal/relay"
	"openshell.dev/openshell/internal/session"
	"openshell.dev/openshell/internal/session/sshd"
)

// Back-off of reconnecting.
const (
	firstDelay = 50 * time.Millisecond
	lastDelay  = 5 * time.Second
)

// Options are what an uplink connects.
type Options struct {
	SandboxID  string
	InstanceID string
	StateDir   string // the SSH host key lies here

	Endpoint  string // unix:///path or http(s)://host:port
	CAFile    string
	TokenFile string

	// OutageLimit is how long the gateway may be away; 0 means 120 s.
	OutageLimit time.Duration
	// AwaitAttachment keeps the end of the main process from the gateway
	// until an attachment has read its output.
	AwaitAttachment bool

	Box session.Box
	// SetPolicy puts a policy document in force; nil refuses every change.
	SetPolicy func(ctx context.Context, doc []byte, version uint32) error
	// PolicyVersion is the revision that the sandbox started with.
	PolicyVersion uint32
	Log           *slog.Logger
	// Woken, if set, is called after each exchange with the gateway that was
	// nothing but a sign of life. It must not block.
	Woken func()
	// Lines are pushed to the gateway's log of this sandbox; may be nil.
	Lines *Lines
}

// Uplink is one supervisor's connection. Use New.
type Uplink struct {
	o      Options
	client openshellv1connect.OpenShellClient
	link   *link
	ssh    *sshd.Server
	shells *session.Shells
	epoch  uint64

	heard     atomic.Int64  // unix nanoseconds of the last sign of the gateway
	connected chan struct{} // closed at the first session
	firstOnce sync.Once
	attached  chan struct{}
	once      sync.Once
	reported  chan struct{} // closed when the exit is stored by the gateway
	exitOnce  sync.Once

	mu      sync.Mutex
	version uint32 // policy in force; guarded by mu
}

// New prepares a connection without making it.
func New(o Options) (*Uplink, error) {
	if o.OutageLimit <= 0 {
		o.OutageLimit = 2 * time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l, err := newLink(o.Endpoint, o.CAFile, o.TokenFile)
	if err != nil {
		return nil, err
	}
	server, err := sshd.New(o.Box, filepath.Join(o.StateDir, "ssh_host_ed25519_key"), o.Log)
	if err != nil {
		return nil, err
	}
	u := &Uplink{o: o, link: l, ssh: server, shells: &session.Shells{Box: o.Box}, connected: make(chan struct{}), attached: make(chan struct{}), reported: make(chan struct{}),
		version: o.PolicyVersion}
	server.Attached = u.wasAttached
	server.Ended = u.beforeExit
	// Relays carry files and encrypted streams: compressing them costs more
	// than the network between the two.
	u.client = openshellv1connect.NewOpenShellClient(l.http, l.base, connect.WithGRPC(), connect.WithAcceptCompression("gzip", nil, nil))
	u.heard.Store(time.Now().UnixNano())
	return u, nil
}

// ErrOutage is returned by Run when the gateway was away for too long.
var ErrOutage = fault.New(fault.Unavailable, "the gateway could not be reached for too long").Because("GatewayUnreachable")

// ErrRejected is returned by Run when the gateway does not want this run any
// more: it was deleted or replaced.
var ErrRejected = errors.New("the gateway refuses this run of the sandbox")

// Run keeps the session until ctx ends, the gateway refuses us, or it was
// away for longer than the limit.
func (u *Uplink) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer u.link.http.CloseIdleConnections()
	defer cancel()
	work.Go(func() { u.reportExit(ctx) })
	if u.o.Lines != nil {
		work.Go(func() { u.pushLines(ctx) })
	}
	work.Go(func() { u.renewToken(ctx) })
	delay := firstDelay
	for {
		began := time.Now()
		err := u.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, ErrRejected) {
			return err
		}
		u.o.Log.Warn("gateway session ended, connecting again", "err", err)
		if away := time.Since(time.Unix(0, u.heard.Load())); away > u.o.OutageLimit {
			return ErrOutage
		}
		if time.Since(began) > 10*time.Second {
			delay = firstDelay
		}
		select {
		case <-time.After(delay/2 + rand.N(delay)): // not all supervisors at once
		case <-ctx.Done():
			return ctx.Err()
		}
		delay = min(delay*2, lastDelay)
	}
}

// session holds one connection until it breaks.
func (u *Uplink) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	call, info := connect.NewClientContext(ctx) // of this call only
	info.RequestHeader().Set(relay.HeaderHostKey, u.ssh.Fingerprint())
	stream, err := u.client.ConnectSupervisor(call)
	if err != nil {
		return err
	}
	// While a request body is open the HTTP/2 client does not look at the
	// context: closing our direction lets it.
	defer context.AfterFunc(ctx, func() { _ = stream.CloseRequest() })()
	u.epoch++
	var sending sync.Mutex
	send := func(m *openshellv1.SupervisorMessage) error {
		sending.Lock()
		defer sending.Unlock()
		return stream.Send(m)
	}
	if err := send(&openshellv1.SupervisorMessage{Payload: &openshellv1.SupervisorMessage_Hello{Hello: &openshellv1.SupervisorHello{
		SandboxId: u.o.SandboxID, InstanceId: u.o.InstanceID, ConnectionEpoch: u.epoch, SupportsConfigPush: true}}}); err != nil && !errors.Is(err, errEOF) {
		return err
	}
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	if r := first.GetSessionRejected(); r != nil {
		return rejection(r)
	}
	accepted := first.GetSessionAccepted()
	if accepted == nil {
		return fault.New(fault.Internal, "the gateway's first answer is not valid")
	}
	u.alive()
	u.firstOnce.Do(func() { close(u.connected) })
	interval := accepted.GetHeartbeatInterval().AsDuration()
	if interval < 100*time.Millisecond || interval > time.Minute {
		interval = 15 * time.Second
	}
	// A gateway that stops talking without closing is as gone as one that
	// closes: the watchdog ends the connection.
	watchdog := time.AfterFunc(4*interval, cancel)
	defer watchdog.Stop()
	work.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if send(&openshellv1.SupervisorMessage{Payload: &openshellv1.SupervisorMessage_Heartbeat{Heartbeat: &openshellv1.SupervisorHeartbeat{}}}) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	work.Go(func() { u.spare(ctx, func(next func()) { work.Go(next) }) })
	for {
		m, err := stream.Receive()
		if err != nil {
			return err
		}
		u.alive()
		watchdog.Reset(4 * interval)
		switch p := m.GetPayload().(type) {
		case *openshellv1.GatewayMessage_RelayOpen:
			work.Go(func() { u.relay(ctx, p.RelayOpen, send) })
		case *openshellv1.GatewayMessage_ConfigUpdate:
			work.Go(func() { u.configure(ctx, p.ConfigUpdate, send) })
		case *openshellv1.GatewayMessage_Heartbeat:
			if u.o.Woken != nil {
				u.o.Woken()
			}
		case *openshellv1.GatewayMessage_SessionRejected:
			return rejection(p.SessionRejected)
		}
	}
}

// rejection tells a run that is over from a refusal that may pass.
func rejection(r *openshellv1.SessionRejected) error {
	if r.GetReason() == relay.RunOver {
		return ErrRejected
	}
	return fault.New(fault.Unavailable, "the gateway refused the session: %s", r.GetReason())
}

func (u *Uplink) alive() { u.heard.Store(time.Now().UnixNano()) }

// configure puts a pushed policy in force and says how that went. Only one
// is put in force at a time, and an older one never after a newer one.
func (u *Uplink) configure(ctx context.Context, m *openshellv1.ConfigUpdate, send func(*openshellv1.SupervisorMessage) error) {
	res := &openshellv1.ConfigUpdateResult{UpdateId: m.GetUpdateId(), Outcome: openshellv1.ConfigApplyOutcome_CONFIG_APPLY_OUTCOME_APPLIED}
	if s := m.GetSandboxConfig(); s.GetPolicy() != nil {
		u.mu.Lock()
		switch {
		case s.GetVersion() < u.version:
			res.Outcome = openshellv1.ConfigApplyOutcome_CONFIG_APPLY_OUTCOME_IGNORED_STALE
		case s.GetVersion() == u.version:
			res.Outcome = openshellv1.ConfigApplyOutcome_CONFIG_APPLY_OUTCOME_IGNORED_DUPLICATE
			res.PolicyLoad = &openshellv1.PolicyLoadResult{Version: s.GetVersion(), Loaded: true}
		default:
			err := errors.New("this supervisor cannot change its policy while it runs")
			var doc []byte
			if u.o.SetPolicy != nil {
				if doc, err = policyproto.JSON(s.GetPolicy()); err == nil {
					err = u.o.SetPolicy(ctx, doc, s.GetVersion())
				}
			}
			res.PolicyLoad = &openshellv1.PolicyLoadResult{Version: s.GetVersion(), Loaded: err == nil}
			if err != nil {
				res.Outcome = openshellv1.ConfigApplyOutcome_CONFIG_APPLY_OUTCOME_FAILED_RETAINED_LAST_KNOWN_GOOD
				res.PolicyLoad.Error = err.Error()
				res.Failure = &openshellv1.ConfigApplyFailure{Code: "PolicyRefused", Message: err.Error()}
			} else {
				u.version = s.GetVersion()
			}
		}
		u.mu.Unlock()
	}
	if err := send(&openshellv1.SupervisorMessage{Payload: &openshellv1.SupervisorMessage_ConfigUpdateResult{ConfigUpdateResult: res}}); err != nil {
		u.o.Log.Warn("policy result not sent", "err", err)
	}
}
