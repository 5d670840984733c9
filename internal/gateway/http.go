package gateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net"
	"net/http"
	"strings"

	"connectrpc.com/connect"

	"openshell.dev/openshell/api/authtable"
	"openshell.dev/openshell/api/gen/openshellv1/openshellv1connect"
	"openshell.dev/openshell/internal/authn"
)

// maxMessage bounds a request message.
const maxMessage = 4 << 20

type ctxKey int

const (
	keyPrincipal ctxKey = iota
	keyControl
	keyConn
)

// connInfo is what an accepted connection proves.
type connInfo struct {
	owner func() bool // of a Unix socket; asked once
}

// routes assembles everything that is served on the port.
func (g *Gateway) routes() http.Handler {
	mux := http.NewServeMux()
	path, handler := openshellv1connect.NewOpenShellHandler(g,
		connect.WithReadMaxBytes(maxMessage), connect.WithInterceptors(&faults{g: g}))
	mux.Handle(path, g.authorize(path, handler))
	mux.Handle(g.health.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /readyz", g.readyz)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("x-request-id")
		if id == "" || len(id) > 128 {
			id = newID()
		}
		w.Header().Set("x-request-id", id)
		mux.ServeHTTP(w, r)
	})
}

func (g *Gateway) readyz(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	status, code := "healthy", http.StatusOK
	if g.base.Err() != nil {
		status, code = "draining", http.StatusServiceUnavailable
	}
	w.WriteHeader(code)
	_, _ = w.Write([]byte(`{"status":"` + status + `"}`))
}

// authorize lets a call through to its handler if the contract's table allows
// its caller, before anything of the message is decoded.
func (g *Gateway) authorize(prefix string, next http.Handler) http.Handler {
	writer := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rule := ruleOf(g.rules.Rule(r.URL.Path))
		ctx := context.WithValue(r.Context(), keyControl, http.NewResponseController(w))
		if known := strings.Count(r.URL.Path, "/") == 2 && rule.Mode != authn.Closed; known {
			p, err := g.caller(r, rule)
			if err != nil {
				_ = writer.Write(w, r, g.rpcError(ctx, r.URL.Path, err))
				return
			}
			ctx = context.WithValue(ctx, keyPrincipal, p)
		}
		// An unknown method reaches the handler and is answered
		// Unimplemented, as any gRPC server does.
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func (g *Gateway) caller(r *http.Request, rule authn.Rule) (authn.Principal, error) {
	if rule.Mode == authn.Unauthenticated {
		return authn.Principal{}, nil
	}
	var e authn.Evidence
	if h := r.Header.Get("authorization"); h != "" {
		e.HasBearer = true
		if token, ok := strings.CutPrefix(h, "Bearer "); ok {
			e.Bearer = token
		}
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		e.Certificate = r.TLS.PeerCertificates[0]
	}
	if info, ok := r.Context().Value(keyConn).(*connInfo); ok && !e.HasBearer {
		e.Owner = info.owner()
	}
	p, err := g.opts.Auth.Principal(e)
	if err != nil {
		return authn.Principal{}, err
	}
	return p, rule.Allow(p)
}

func ruleOf(r authtable.Rule) authn.Rule {
	out := authn.Rule{Mode: authn.Modes[r.Mode.String()], Scope: r.Scope, PlatformAdmin: r.Role == authtable.PlatformAdmin}
	switch r.Role {
	case authtable.WorkspaceUser, authtable.WorkspaceAdmin:
		out.WorkspaceRole = r.Role.String()
	}
	return out
}

func principal(ctx context.Context) authn.Principal {
	p, _ := ctx.Value(keyPrincipal).(authn.Principal)
	return p
}

// control returns the means to unblock reads and writes of this call.
func control(ctx context.Context) *http.ResponseController {
	c, _ := ctx.Value(keyControl).(*http.ResponseController)
	return c
}

func connContext(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	owner, err := authn.PeerIsOwner(u)
	known := err == nil && owner
	return context.WithValue(ctx, keyConn, &connInfo{owner: func() bool { return known }})
}

// newID returns a random UUID (version 4).
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// faults is the interceptor that turns errors of handlers into wire errors.
type faults struct{ g *Gateway }

// WrapUnary implements connect.Interceptor.
func (f *faults) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		res, err := next(ctx, req)
		if err != nil {
			return nil, f.g.rpcError(ctx, req.Spec().Procedure, err)
		}
		return res, nil
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (f *faults) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (f *faults) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return f.g.rpcError(ctx, conn.Spec().Procedure, next(ctx, conn))
	}
}
