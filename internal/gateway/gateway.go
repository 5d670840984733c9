// Package gateway is the control plane: the 0.1.x API over the store, the
// drivers and the sessions of supervisors.
//
// It owns the handlers (one file per noun), the fleet that moves sandboxes
// through their phases, relays between clients and supervisors, and the
// listeners. It guarantees that nothing acknowledged is lost, that every call
// is authorized by the contract's own table, and that no sandbox may act on
// another. It enforces no policy itself. cmd/openshell-gateway runs it.
package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"openshell.dev/openshell/api/authtable"
	"openshell.dev/openshell/api/gen/openshellv1/openshellv1connect"
	"openshell.dev/openshell/internal/authn"
	"openshell.dev/openshell/internal/compute"
	"openshell.dev/openshell/internal/health"
	"openshell.dev/openshell/internal/store"
)

// Options are what a gateway is made of.
type Options struct {
	Store  store.Store
	Driver compute.Driver
	Auth   *authn.Authenticator
	Tokens *authn.Tokens // mints what supervisors carry
	Log    *slog.Logger  // nil: none

	// TLS secures the port; nil means plaintext.
	TLS *tls.Config
	// SupervisorEndpoint is where supervisors find us, unix:// or http(s);
	// SupervisorCA is the file with the CA they trust.
	SupervisorEndpoint string
	SupervisorCA       string

	SSHSessionTTL    time.Duration // 0: no expiry
	ImagePreparation time.Duration // 0: 30 minutes
	StartLimit       time.Duration // from compute to session; 0: 5 minutes
	OutageLimit      time.Duration
	// CreateHold is how long CreateSandbox waits for a fast sandbox; 0 means
	// 200 ms, negative not at all.
	CreateHold time.Duration
	// Heartbeat is the interval of the supervisor session; 0: 15 s.
	Heartbeat time.Duration
	// StopGrace is what the main process gets before it is killed; 0: 10 s.
	StopGrace time.Duration
	// FingerprintKey keys the payload fingerprints of request ids.
	FingerprintKey []byte
	Now            func() time.Time // nil: time.Now
}

// Gateway serves the API. Use New, then Run beside one or more Serve.
type Gateway struct {
	openshellv1connect.UnimplementedOpenShellHandler

	opts   Options
	log    *slog.Logger
	rules  *authtable.Table
	fleet  *fleet
	relays *relays
	admits *admissions
	ssh    sshCounts
	driver compute.Description
	health *health.Server
	router http.Handler
	base   context.Context // ends with Run
	end    context.CancelFunc
	work   sync.WaitGroup // detached work

	mu      sync.Mutex
	address *net.TCPAddr // of the main port, for SSH sessions; guarded by mu
	servers []*http.Server
}

// New makes a gateway and brings its state up: sandboxes of an earlier
// process are known and wait for their supervisors when it returns.
func New(ctx context.Context, o Options) (*Gateway, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	orElse(&o.ImagePreparation, 30*time.Minute)
	orElse(&o.StartLimit, 5*time.Minute)
	orElse(&o.CreateHold, 200*time.Millisecond)
	orElse(&o.Heartbeat, 15*time.Second)
	orElse(&o.StopGrace, 10*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	rules, err := authtable.Load()
	if err != nil {
		return nil, err
	}
	description, err := o.Driver.Describe(ctx)
	if err != nil {
		return nil, err
	}
	base, end := context.WithCancel(context.WithoutCancel(ctx))
	g := &Gateway{opts: o, log: o.Log, rules: rules, driver: description, health: health.New(), base: base, end: end}
	g.relays = newRelays()
	g.admits = &admissions{store: o.Store, key: o.FingerprintKey, now: o.Now}
	g.fleet = &fleet{g: g, boxes: map[string]*box{}, named: map[string]*box{}}
	if err := g.ensureDefaultWorkspace(ctx); err != nil {
		return nil, err
	}
	if err := g.fleet.load(ctx); err != nil {
		return nil, err
	}
	if err := g.fleet.doubt(ctx); err != nil {
		return nil, err
	}
	g.router = g.routes()
	return g, nil
}

func orElse(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// Run follows the driver and the clock until ctx ends, then closes every
// session and listener. Sandboxes go on.
func (g *Gateway) Run(ctx context.Context) error {
	if err := g.fleet.recover(ctx); err != nil {
		return err
	}
	g.health.Set("", true)
	g.health.Set(openshellv1connect.OpenShellName, true)
	err := g.fleet.run(ctx)
	g.close()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (g *Gateway) close() {
	g.health.Close()
	g.end()
	g.fleet.closeSessions("the gateway is shutting down")
	g.mu.Lock()
	servers := g.servers
	g.mu.Unlock()
	stop, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for _, s := range servers {
		if err := s.Shutdown(stop); err != nil {
			_ = s.Close()
		}
	}
	g.work.Wait()
}

// Idle reports since when there is no sandbox; zero while there is one.
func (g *Gateway) Idle() time.Time { return g.fleet.idleSince() }

func (g *Gateway) now() time.Time { return g.opts.Now() }
