package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/store"
)

// Connections that SSH sessions may have at once.
const (
	maxPerToken = 3
	maxPerBox   = 20
)

// sshSession is a stored SSH session. Its id is a digest, so that the
// database holds no token.
type sshSession struct {
	Expires time.Time `json:"expires,omitzero"`
	Revoked bool      `json:"revoked,omitempty"`
}

type sshCounts struct {
	mu     sync.Mutex
	tokens map[string]int
	boxes  map[string]int
}

func tokenID(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// CreateSshSession implements the API. Its record is not waited for on the
// disk: a session lost with the power is asked for again.
func (g *Gateway) CreateSshSession(ctx context.Context, req *openshellv1.CreateSshSessionRequest) (*openshellv1.CreateSshSessionResponse, error) {
	if req.GetSandbox() == "" {
		return nil, invalid("sandbox", "sandbox is required")
	}
	b, err := g.find(ctx, req.GetWorkspaceScope(), req.GetSandbox())
	if err != nil {
		return nil, err
	}
	r := b.get()
	if err := usable(r); err != nil {
		return nil, err
	}
	var s sshSession
	if ttl := g.opts.SSHSessionTTL; ttl > 0 {
		s.Expires = g.now().Add(ttl)
	}
	payload, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	token := newID()
	if _, err := g.opts.Store.Put(ctx, store.Record{Kind: kindSSH, ID: tokenID(token), Scope: b.id, Workspace: r.workspace, Payload: payload}); err != nil {
		return nil, err
	}
	res := &openshellv1.CreateSshSessionResponse{SandboxId: b.id, Token: token, HostKeyFingerprint: r.s.HostKey, ExpirationTime: stamp(s.Expires),
		GatewayHost: "127.0.0.1", GatewayScheme: "http"}
	if g.opts.TLS != nil {
		res.GatewayScheme = "https"
	}
	g.mu.Lock()
	if g.address != nil {
		res.GatewayPort = uint32(g.address.Port)
		switch ip := g.address.IP; {
		case ip.IsUnspecified(): // no host: clients must refuse it
		case ip.To4() != nil:
			res.GatewayHost = ip.String()
		default:
			res.GatewayHost = "[" + ip.String() + "]"
		}
	}
	g.mu.Unlock()
	return res, nil
}

// RevokeSshSession implements the API.
func (g *Gateway) RevokeSshSession(ctx context.Context, req *openshellv1.RevokeSshSessionRequest) (*openshellv1.RevokeSshSessionResponse, error) {
	if req.GetToken() == "" {
		return nil, invalid("token", "token is required")
	}
	rec, s, err := g.sshRecord(ctx, req.GetToken())
	if err == nil {
		err = g.mayUse(ctx, rec.Workspace)
	}
	if errors.Is(err, store.ErrNotFound) {
		if req.GetAllowMissing() {
			return &openshellv1.RevokeSshSessionResponse{Outcome: openshellv1.DeletionOutcome_DELETION_OUTCOME_ALREADY_ABSENT}, nil
		}
		return nil, fault.New(fault.NotFound, "SSH session token not found")
	}
	if err != nil {
		return nil, err
	}
	if !s.Revoked {
		s.Revoked = true
		if rec.Payload, err = json.Marshal(s); err != nil {
			return nil, err
		}
		if _, err := g.opts.Store.Put(context.WithoutCancel(ctx), rec); err != nil {
			return nil, err
		}
		if err := g.opts.Store.Sync(ctx); err != nil {
			return nil, err
		}
	}
	return &openshellv1.RevokeSshSessionResponse{Outcome: openshellv1.DeletionOutcome_DELETION_OUTCOME_COMPLETED}, nil
}

func (g *Gateway) sshRecord(ctx context.Context, token string) (store.Record, sshSession, error) {
	rec, err := g.opts.Store.Get(ctx, kindSSH, tokenID(token))
	if err != nil {
		return store.Record{}, sshSession{}, err
	}
	var s sshSession
	return rec, s, json.Unmarshal(rec.Payload, &s)
}

// useSSH counts one connection of a session that is good for the sandbox. The
// function it returns gives the place back.
func (g *Gateway) useSSH(ctx context.Context, token, box string) (func(), error) {
	bad := func(text string) error { return fault.New(fault.Unauthenticated, "%s", text) }
	if token == "" {
		return nil, bad("authorization_token is required for ForwardTcp")
	}
	rec, s, err := g.sshRecord(ctx, token)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, bad("SSH session token not found")
	case err != nil:
		return nil, err
	case rec.Scope != box || s.Revoked:
		return nil, bad("SSH session token is not valid")
	case !s.Expires.IsZero() && g.now().After(s.Expires):
		return nil, bad("SSH session token expired")
	}
	c := &g.ssh
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tokens == nil {
		c.tokens, c.boxes = map[string]int{}, map[string]int{}
	}
	if c.tokens[rec.ID] >= maxPerToken {
		return nil, fault.New(fault.Exhausted, "SSH session connection limit reached")
	}
	if c.boxes[box] >= maxPerBox {
		return nil, fault.New(fault.Exhausted, "sandbox SSH connection limit reached")
	}
	c.tokens[rec.ID]++
	c.boxes[box]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.tokens[rec.ID]--; c.tokens[rec.ID] <= 0 {
			delete(c.tokens, rec.ID)
		}
		if c.boxes[box]--; c.boxes[box] <= 0 {
			delete(c.boxes, box)
		}
	}, nil
}

// dropSSH ends all SSH sessions of a sandbox: a new run takes none over.
func (g *Gateway) dropSSH(ctx context.Context, box string) error {
	return g.dropScope(ctx, kindSSH, box)
}

func (g *Gateway) dropPolicies(ctx context.Context, box string) error {
	return g.dropScope(ctx, kindPolicy, box)
}

func (g *Gateway) dropScope(ctx context.Context, kind, scope string) error {
	for {
		list, err := g.opts.Store.List(ctx, store.Query{Kind: kind, Scope: scope, Limit: store.MaxLimit})
		if err != nil {
			return err
		}
		for _, r := range list {
			if err := g.opts.Store.Delete(ctx, kind, r.ID, 0); err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		if len(list) < store.MaxLimit {
			return nil
		}
	}
}
