package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/api/gen/openshellv1/openshellv1connect"
	"openshell.dev/openshell/internal/client"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/gateways"
	"openshell.dev/openshell/internal/pki"
)

// gateway answers Health with who asks, and everything else with err.
type gateway struct {
	openshellv1connect.UnimplementedOpenShellHandler
	version string
	err     error
}

func (g *gateway) Health(ctx context.Context, _ *openshellv1.HealthRequest) (*openshellv1.HealthResponse, error) {
	call, _ := connect.CallInfoForHandlerContext(ctx)
	if _, limited := ctx.Deadline(); !limited {
		return nil, errors.New("no deadline arrived")
	}
	v := g.version
	if auth := call.RequestHeader().Get("Authorization"); auth != "" {
		v += " " + auth
	}
	return &openshellv1.HealthResponse{Version: v}, nil
}

func (g *gateway) GetSandbox(context.Context, *openshellv1.GetSandboxRequest) (*openshellv1.SandboxResponse, error) {
	return nil, g.err
}

func serve(t *testing.T, g *gateway, l net.Listener, config *tls.Config) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(openshellv1connect.NewOpenShellHandler(g))
	srv := &http.Server{Handler: mux, Protocols: new(http.Protocols), TLSConfig: config}
	srv.Protocols.SetUnencryptedHTTP2(true)
	srv.Protocols.SetHTTP2(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if config != nil {
			_ = srv.ServeTLS(l, "", "")
			return
		}
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() { _ = srv.Close(); <-done })
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func registry(t *testing.T) gateways.Registry {
	return gateways.Registry{Root: filepath.Join(t.TempDir(), "openshell")}
}

func put(t *testing.T, r gateways.Registry, m gateways.Metadata) {
	t.Helper()
	if err := r.Put(m); err != nil {
		t.Fatal(err)
	}
}

func health(t *testing.T, o client.Options) (string, error) {
	t.Helper()
	c, err := client.Connect(context.Background(), o)
	if err != nil {
		return "", err
	}
	defer c.Close()
	h, err := c.Health(context.Background(), &openshellv1.HealthRequest{})
	return h.GetVersion(), err
}

func TestTheGatewayIsFound(t *testing.T) {
	r := registry(t)
	put(t, r, gateways.Metadata{Name: "a", Endpoint: "http://127.0.0.1:1"})
	put(t, r, gateways.Metadata{Name: "b", Endpoint: "http://127.0.0.1:2/"})
	for _, test := range []struct {
		name, active string
		o            client.Options
		want, hint   string
	}{
		{"nothing chosen", "", client.Options{}, "", "gateway select a"},
		{"the active one", "b", client.Options{}, "b", ""},
		{"by name", "b", client.Options{Gateway: "a"}, "a", ""},
		{"a blank name is none", "b", client.Options{Gateway: "  "}, "b", ""},
		{"unknown", "b", client.Options{Gateway: "c"}, "", "gateway list"},
		{"by URL of a registration", "", client.Options{Endpoint: "http://127.0.0.1:2"}, "b", ""},
		{"by an unknown URL", "b", client.Options{Endpoint: "http://127.0.0.1:3"}, "http://127.0.0.1:3", ""},
		{"URL with a name", "b", client.Options{Endpoint: "http://127.0.0.1:3", Gateway: "a"}, "a", ""},
		{"no URL", "b", client.Options{Endpoint: "127.0.0.1:3"}, "", "https://127.0.0.1:3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := r.SetActive(test.active); err != nil {
				t.Fatal(err)
			}
			test.o.Registry = r
			got, err := client.Find(test.o)
			if got.Name != test.want || (err == nil) != (test.want != "") || !strings.Contains(fault.HintOf(err), test.hint) {
				t.Errorf("Find = %q, %v (hint %q)", got.Name, err, fault.HintOf(err))
			}
		})
	}
	if _, err := client.Find(client.Options{Registry: registry(t)}); !client.NoGateway(err) {
		t.Errorf("without any gateway: %v", err)
	}
}

func TestPlaintextTLSAndUnixSocket(t *testing.T) {
	g := &gateway{version: "0.1.9"}
	plain := listen(t)
	serve(t, g, plain, nil)

	bundle := filepath.Join(t.TempDir(), "tls")
	if _, err := pki.Ensure(bundle, pki.Want{}); err != nil {
		t.Fatal(err)
	}
	secure := listen(t)
	serve(t, g, secure, serverTLS(t, bundle))

	r := registry(t)
	dir, err := os.MkdirTemp("/tmp", "sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	unix, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, &gateway{version: "socket"}, unix, nil)

	put(t, r, gateways.Metadata{Name: "mtls", Endpoint: "https://" + secure.Addr().String(), AuthMode: "mtls"})
	if _, err := health(t, client.Options{Registry: r, Gateway: "mtls"}); err == nil || !strings.Contains(err.Error(), "TLS CA is required") {
		t.Errorf("without certificates: %v", err)
	}
	if err := pki.CopyClient(bundle, r.MTLSDir("mtls")); err != nil {
		t.Fatal(err)
	}
	put(t, r, gateways.Metadata{Name: "both", Endpoint: "https://127.0.0.1:1", AuthMode: "mtls", UnixSocket: dir + "/s"})
	put(t, r, gateways.Metadata{Name: "oidc", Endpoint: "http://" + plain.Addr().String(), AuthMode: "oidc"})
	for _, test := range []struct {
		name string
		o    client.Options
		want string
	}{
		{"plaintext", client.Options{Endpoint: "http://" + plain.Addr().String(), Gateway: "none"}, "0.1.9"},
		{"mutual TLS", client.Options{Gateway: "mtls"}, "0.1.9"},
		{"the socket comes first", client.Options{Gateway: "both"}, "socket"},
	} {
		test.o.Registry = r
		if got, err := health(t, test.o); got != test.want || err != nil {
			t.Errorf("%s: %q, %v", test.name, got, err)
		}
	}
	for name, test := range map[string]struct {
		o    client.Options
		want string
	}{
		"plaintext to TLS":  {client.Options{Endpoint: "http://" + secure.Addr().String()}, "https://"},
		"TLS to plaintext":  {client.Options{Endpoint: "https://" + plain.Addr().String()}, "http://"},
		"unknown authority": {client.Options{Endpoint: "https://" + secure.Addr().String() + "/x"}, "authority"},
		"refused":           {client.Options{Endpoint: "http://127.0.0.1:1"}, "refused"},
		"no such host":      {client.Options{Endpoint: "http://nowhere.invalid"}, "no such host"},
		"OIDC, no token":    {client.Options{Gateway: "oidc"}, "OIDC credentials are missing"},
	} {
		test.o.Registry = r
		_, err := health(t, test.o)
		text := ""
		if err != nil {
			text = err.Error() + " " + fault.HintOf(err)
		}
		if !strings.Contains(text, test.want) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v (hint %q)", name, err, fault.HintOf(err))
		}
	}

	token := filepath.Join(r.Dir("oidc"), "oidc_token.json")
	for body, want := range map[string]string{
		`{"access_token":"abc"}`:                 "0.1.9 Bearer abc",
		`{"access_token":"abc","expires_at":1}`:  "!expired",
		`{"access_token":"abc\r\nEvil: header"}`: "!no usable token",
		`not json`:                               "!no usable token",
	} {
		if err := os.WriteFile(token, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := health(t, client.Options{Registry: r, Gateway: "oidc"})
		if bad, is := strings.CutPrefix(want, "!"); is && (err == nil || !strings.Contains(err.Error(), bad)) || !is && got != want {
			t.Errorf("token %s: %q, %v", body, got, err)
		}
	}
}

func serverTLS(t *testing.T, bundle string) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(bundle, pki.ServerCert), filepath.Join(bundle, pki.ServerKey))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(bundle, pki.CACert))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
}

func TestAnErrorOfTheGatewayBecomesAFault(t *testing.T) {
	detail := func(err *connect.Error, ms ...proto.Message) error {
		for _, m := range ms {
			d, derr := connect.NewErrorDetail(m)
			if derr != nil {
				t.Fatal(derr)
			}
			err.AddDetail(d)
		}
		return err
	}
	g := &gateway{version: "0.1.9"}
	l := listen(t)
	serve(t, g, l, nil)
	c, err := client.Connect(context.Background(), client.Options{Registry: registry(t), Endpoint: "http://" + l.Addr().String(), Workspace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, test := range []struct {
		name   string
		err    error
		kind   fault.Kind
		text   string
		hint   string
		reason string
		field  string
	}{
		{"plain", connect.NewError(connect.CodeNotFound, errors.New("sandbox not found")), fault.NotFound, "sandbox not found", "sandbox list", "", ""},
		{"field", detail(connect.NewError(connect.CodeInvalidArgument, errors.New("bad name")), &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "name", Description: "x"}}}), fault.InvalidArgument, "bad name", "", "", "name"},
		{"reason and hint", detail(connect.NewError(connect.CodeFailedPrecondition, errors.New("no")), &errdetails.ErrorInfo{Reason: "R", Metadata: map[string]string{"hint": "do this"}}), fault.FailedPrecondition, "no", "do this", "R", ""},
		{"retry", detail(connect.NewError(connect.CodeUnavailable, errors.New("busy")), &errdetails.RetryInfo{RetryDelay: durationpb.New(2 * time.Second)}), fault.Unavailable, "busy", "try again in 2s", "", ""},
		{"conflict", detail(connect.NewError(connect.CodeAborted, errors.New("changed")), &errdetails.ErrorInfo{Reason: "RESOURCE_VERSION_CONFLICT"}), fault.Conflict, "changed", "look again", "RESOURCE_VERSION_CONFLICT", ""},
		{"control characters", connect.NewError(connect.CodeInternal, errors.New("a\x1b[2Jb\nforged: line")), fault.Internal, "a[2Jb forged: line", "", "", ""},
		{"not served", connect.NewError(connect.CodeUnimplemented, errors.New("nope")), fault.Unsupported, "(version 0.1.9) does not serve GetSandbox", "", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			g.err = test.err
			_, err := c.Sandbox(context.Background(), "x")
			var f *fault.Error
			if !errors.As(err, &f) {
				t.Fatalf("no fault: %v", err)
			}
			if f.Kind != test.kind || !strings.Contains(err.Error(), test.text) || !strings.Contains(fault.HintOf(err), test.hint) || f.Reason != test.reason || f.Field != test.field {
				t.Errorf("%v kind %v hint %q reason %q field %q", err, f.Kind, fault.HintOf(err), f.Reason, f.Field)
			}
		})
	}
	g.version, g.err = "0.0.112", connect.NewError(connect.CodeUnimplemented, errors.New("nope"))
	if _, err := c.Sandbox(context.Background(), "x"); !strings.Contains(err.Error(), "0.0.112") || !strings.Contains(fault.HintOf(err), "0.1 line") {
		t.Errorf("an old gateway: %v (hint %q)", err, fault.HintOf(err))
	}
}

func TestTheLastSandboxIsOfOneGatewayAndWorkspace(t *testing.T) {
	r := registry(t)
	at := func(endpoint, workspace string) *client.Client {
		c, err := client.Connect(context.Background(), client.Options{Registry: r, Endpoint: endpoint, Workspace: workspace})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	a, other, elsewhere := at("http://127.0.0.1:1", "default"), at("http://127.0.0.1:1", "team"), at("http://127.0.0.1:2", "default")
	a.Remember("box")
	if got := a.LastSandbox(); got != "box" {
		t.Errorf("LastSandbox = %q", got)
	}
	if x, y := other.LastSandbox(), elsewhere.LastSandbox(); x != "" || y != "" {
		t.Errorf("another workspace has %q, another gateway %q", x, y)
	}
	a.Forget("other")
	if name, chosen, err := a.Choose(""); name != "box" || !chosen || err != nil {
		t.Errorf("Choose = %q, %v, %v", name, chosen, err)
	}
	a.Forget("box")
	if _, _, err := a.Choose(""); fault.KindOf(err) != fault.InvalidArgument {
		t.Errorf("Choose = %v", err)
	}
}

// A socket of somebody else's must not get our calls, whatever a registration
// says.
func TestAForeignSocketIsNotUsed(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to give a socket away")
	}
	dir, err := os.MkdirTemp("/tmp", "sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, &gateway{version: "foreign"}, l, nil)
	if err := os.Lchown(dir+"/s", 4711, 4711); err != nil {
		t.Fatal(err)
	}
	tcp := listen(t)
	serve(t, &gateway{version: "ours"}, tcp, nil)
	r := registry(t)
	put(t, r, gateways.Metadata{Name: "x", Endpoint: "http://" + tcp.Addr().String(), AuthMode: "plaintext", UnixSocket: dir + "/s"})
	if got, err := health(t, client.Options{Registry: r, Gateway: "x"}); got != "ours" {
		t.Errorf("%q, %v", got, err)
	}
}
