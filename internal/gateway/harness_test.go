package gateway_test

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"openshell.dev/openshell/api/gen/datamodelv1"
	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/authn"
	"openshell.dev/openshell/internal/compute"
	"openshell.dev/openshell/internal/compute/computetest"
	"openshell.dev/openshell/internal/gateway"
	"openshell.dev/openshell/internal/pki"
	"openshell.dev/openshell/internal/store"
)

// world is a gateway with what it needs, on a loopback port.
type world struct {
	t      *testing.T
	dir    string
	store  *store.SQLite
	driver compute.Driver
	fake   *computetest.Fake
	tokens *authn.Tokens
	g      *gateway.Gateway
	addr   string // of the port
	socket string
	conn   *grpc.ClientConn
	stop   func()
	change func(*gateway.Options)
}

func newWorld(t *testing.T, change func(*gateway.Options)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), fake: &computetest.Fake{}, change: change}
	w.driver = w.fake
	// A socket path has little room, and test directories are long.
	short, err := os.MkdirTemp("", "gw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	w.socket = filepath.Join(short, "s")
	keys := filepath.Join(w.dir, "tls")
	if _, err := pki.Ensure(keys, pki.Want{}); err != nil {
		t.Fatal(err)
	}
	key, err := pki.TokenKeyIn(keys)
	if err != nil {
		t.Fatal(err)
	}
	w.tokens = &authn.Tokens{Key: key, GatewayID: "openshell"}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

// start opens the store and serves; stop undoes both.
func (w *world) start() {
	w.t.Helper()
	var err error
	if w.store, err = store.Open(context.Background(), filepath.Join(w.dir, "x.db")); err != nil {
		w.t.Fatal(err)
	}
	o := gateway.Options{Store: w.store, Driver: w.driver, Tokens: w.tokens, Auth: &authn.Authenticator{Tokens: w.tokens, AnybodyIsUser: true},
		SupervisorEndpoint: "unix://" + w.socket, FingerprintKey: []byte("k"), Heartbeat: time.Second, StopGrace: 2 * time.Second, OutageLimit: time.Minute}
	if os.Getenv("GATEWAY_TEST_LOG") != "" {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if w.change != nil {
		w.change(&o)
	}
	if w.g, err = gateway.New(context.Background(), o); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	listeners, err := gateway.Listen(ctx, netip.MustParseAddrPort("127.0.0.1:0"), slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	w.addr = listeners[0].Addr().String()
	unixListener, err := gateway.ListenUnix(w.socket)
	if err != nil {
		w.t.Fatal(err)
	}
	served := make(chan error, len(listeners)+2)
	for _, l := range append(listeners, unixListener) {
		go func() { served <- w.g.Serve(l) }()
	}
	go func() { served <- w.g.Run(ctx) }()
	if w.conn, err = grpc.NewClient("passthrough:///"+w.addr, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		w.t.Fatal(err)
	}
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		w.conn.Close()
		cancel()
		for range cap(served) {
			if err := <-served; err != nil && ctx.Err() == nil {
				w.t.Errorf("serve: %v", err)
			}
		}
		if err := w.store.Close(); err != nil {
			w.t.Error(err)
		}
	}
}

const service = "/openshell.v1.OpenShell/"

// call makes a unary call with a stock client.
func call[R any, P interface {
	*R
	proto.Message
}](w *world, method string, req proto.Message, opts ...grpc.CallOption) (P, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	res := P(new(R))
	err := w.conn.Invoke(ctx, service+method, req, res, opts...)
	return res, err
}

// must is call for calls that have to work.
func must[R any, P interface {
	*R
	proto.Message
}](w *world, method string, req proto.Message) P {
	w.t.Helper()
	res, err := call[R, P](w, method, req)
	if err != nil {
		w.t.Fatalf("%s: %v", method, err)
	}
	return res
}

func inDefault() *datamodelv1.WorkspaceSelector {
	return &datamodelv1.WorkspaceSelector{Selection: &datamodelv1.WorkspaceSelector_Workspace{Workspace: "default"}}
}

func everywhere() *datamodelv1.WorkspaceSelector {
	return &datamodelv1.WorkspaceSelector{Selection: &datamodelv1.WorkspaceSelector_AllWorkspaces{AllWorkspaces: &datamodelv1.AllWorkspaces{}}}
}

func (w *world) create(name string, spec *openshellv1.SandboxSpec) *openshellv1.Sandbox {
	w.t.Helper()
	return must[openshellv1.SandboxResponse](w, "CreateSandbox", &openshellv1.CreateSandboxRequest{WorkspaceScope: inDefault(), Name: name, Spec: spec}).GetSandbox()
}

func (w *world) get(name string) *openshellv1.Sandbox {
	w.t.Helper()
	return must[openshellv1.SandboxResponse](w, "GetSandbox", &openshellv1.GetSandboxRequest{WorkspaceScope: inDefault(), Name: name}).GetSandbox()
}

// until polls a sandbox as an SDK does, only faster.
func (w *world) until(name, what string, ok func(*openshellv1.Sandbox) bool) *openshellv1.Sandbox {
	w.t.Helper()
	limit := time.Now().Add(20 * time.Second)
	for {
		b := w.get(name)
		if ok(b) {
			return b
		}
		if time.Now().After(limit) {
			w.t.Fatalf("%s never happened: %v", what, b.GetStatus())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (w *world) phase(name string, phase openshellv1.SandboxPhase) *openshellv1.Sandbox {
	w.t.Helper()
	return w.until(name, phase.String(), func(b *openshellv1.Sandbox) bool { return b.GetStatus().GetPhase() == phase })
}

// stream opens a stream with a stock client.
func (w *world) stream(ctx context.Context, method string, kind grpc.StreamDesc) grpc.ClientStream {
	w.t.Helper()
	s, err := w.conn.NewStream(ctx, &kind, service+method)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// bearer puts a sandbox token on calls.
func (w *world) bearer(id, instance string) context.Context {
	w.t.Helper()
	token, _, err := w.tokens.Mint(modelID(id), instance)
	if err != nil {
		w.t.Fatal(err)
	}
	return metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token.Reveal())
}
