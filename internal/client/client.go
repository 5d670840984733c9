// Package client talks to a gateway for a person: it finds the gateway, opens
// the right kind of connection, starts a private local gateway when none is
// configured, and turns what a gateway answers into faults with hints.
//
// It guarantees that every unary call has a deadline, that a credential is
// only sent where the registration says, and that a Unix socket is used only
// if it belongs to the caller's account or to root. It prints nothing: what a
// person should know goes through Options.Say. The command line uses it.
package client

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"openshell.dev/openshell/api/gen/datamodelv1"
	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/api/gen/openshellv1/openshellv1connect"
	"openshell.dev/openshell/internal/gateways"
)

// CallTimeout bounds a unary call that has no deadline of its own.
const CallTimeout = 30 * time.Second

// Options say where to look for the gateway.
type Options struct {
	Registry  gateways.Registry
	Gateway   string // --gateway or its variable; may be empty
	Endpoint  string // --gateway-endpoint or its variable; may be empty
	Insecure  bool   // do not verify the gateway's certificate
	Workspace string
	// Start allows a private local gateway to be started.
	Start bool
	// Say tells the person something once. Nil: nothing is said.
	Say func(format string, args ...any)
}

// Client is a connection to one gateway, in one workspace.
type Client struct {
	openshellv1connect.OpenShellClient
	Target    Target
	Workspace string

	registry gateways.Registry
	http     *http.Client
	base     string
}

// Connect finds the gateway and prepares a connection. It starts a private
// local gateway if that is what is wanted. Nothing else is sent yet.
func Connect(ctx context.Context, o Options) (*Client, error) {
	target, err := Find(o)
	switch {
	case err != nil && o.Start && isNoGateway(err):
		if target, err = startLocal(ctx, o); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case target.Private && o.Start:
		// Asked, not guessed: a process that is just ending still accepts.
		if c, err := open(o, target); err == nil {
			if c.answers(ctx) {
				return c, nil
			}
			c.Close()
		}
		if target, err = wakeLocal(ctx, o, target); err != nil {
			return nil, err
		}
	}
	return open(o, target)
}

func open(o Options, target Target) (*Client, error) {
	transport, base, err := newTransport(o, target)
	if err != nil {
		return nil, err
	}
	c := &Client{Target: target, Workspace: o.Workspace, registry: o.Registry, http: &http.Client{Transport: transport}, base: base}
	c.OpenShellClient = openshellv1connect.NewOpenShellClient(c.http, base,
		connect.WithGRPC(), connect.WithInterceptors(c.deadlines(), c.faults()),
		connect.WithReadMaxBytes(maxMessage),
		connect.WithAcceptCompression("gzip", nil, nil)) // the output of programs is more than gzip can follow
	return c, nil
}

// answers reports whether the gateway is there.
func (c *Client) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := c.Health(ctx, &openshellv1.HealthRequest{})
	return err == nil
}

// maxMessage bounds one message of a gateway.
const maxMessage = 64 << 20

// Close gives up idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Scope selects the client's workspace.
func (c *Client) Scope() *datamodelv1.WorkspaceSelector {
	return &datamodelv1.WorkspaceSelector{Selection: &datamodelv1.WorkspaceSelector_Workspace{Workspace: c.Workspace}}
}

// Everywhere selects all workspaces.
func Everywhere() *datamodelv1.WorkspaceSelector {
	return &datamodelv1.WorkspaceSelector{Selection: &datamodelv1.WorkspaceSelector_AllWorkspaces{AllWorkspaces: &datamodelv1.AllWorkspaces{}}}
}

// Sandbox fetches one sandbox by name.
func (c *Client) Sandbox(ctx context.Context, name string) (*openshellv1.Sandbox, error) {
	resp, err := c.GetSandbox(ctx, &openshellv1.GetSandboxRequest{WorkspaceScope: c.Scope(), Name: name})
	if err != nil {
		return nil, err
	}
	return resp.GetSandbox(), nil
}

func (c *Client) deadlines() connect.Interceptor {
	return connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if _, has := ctx.Deadline(); has {
				return next(ctx, req)
			}
			ctx, cancel := context.WithTimeout(ctx, CallTimeout)
			defer cancel()
			return next(ctx, req)
		}
	})
}

// Healthz asks the gateway over plain HTTP and returns the status code.
func (c *Client) Healthz(ctx context.Context) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/healthz", nil)
	if err != nil {
		return 0, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, c.Target.unreachable(err)
	}
	return resp.StatusCode, resp.Body.Close()
}
