package gateway

import (
	"context"
	"errors"
	"hash/fnv"

	"google.golang.org/protobuf/proto"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/api/gen/sandboxv1"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/store"
)

// status is the revision's status seen from the sandbox as it is now.
func (v *revision) status(r *record) openshellv1.PolicyStatus {
	s := openshellv1.PolicyStatus(v.Status)
	older := (s == openshellv1.PolicyStatus_POLICY_STATUS_PENDING && v.version < r.s.Policy) ||
		(s == openshellv1.PolicyStatus_POLICY_STATUS_LOADED && v.version < r.s.Loaded)
	if older {
		return openshellv1.PolicyStatus_POLICY_STATUS_SUPERSEDED
	}
	return s
}

func (v *revision) wire(r *record, withPolicy bool) (*openshellv1.SandboxPolicyRevision, error) {
	out := &openshellv1.SandboxPolicyRevision{Version: v.version, PolicyHash: v.Hash, Status: v.status(r), LoadError: v.Error,
		CreatedTime: stamp(v.created), LoadedTime: stamp(v.Loaded), Provenance: v.Provenance}
	if withPolicy {
		var err error
		if out.Policy, err = v.wirePolicy(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// GetSandboxPolicyStatus implements the API.
func (g *Gateway) GetSandboxPolicyStatus(ctx context.Context, req *openshellv1.GetSandboxPolicyStatusRequest) (*openshellv1.GetSandboxPolicyStatusResponse, error) {
	if req.GetGlobal() {
		return nil, fault.New(fault.NotFound, "no global policy revision found")
	}
	b, err := g.find(ctx, req.GetWorkspaceScope(), req.GetSandbox())
	if err != nil {
		return nil, err
	}
	r := b.get()
	version := req.GetVersion()
	if version == 0 {
		version = r.s.Policy
	}
	v, err := g.revisionAt(ctx, r, version)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.New(fault.NotFound, "no policy revision found for this sandbox")
	}
	if err != nil {
		return nil, err
	}
	w, err := v.wire(r, true)
	return &openshellv1.GetSandboxPolicyStatusResponse{Revision: w, ActiveVersion: r.s.Loaded}, err
}

// ListSandboxPolicies implements the API: newest first, without bodies.
func (g *Gateway) ListSandboxPolicies(ctx context.Context, req *openshellv1.ListSandboxPoliciesRequest) (*openshellv1.ListSandboxPoliciesResponse, error) {
	if req.GetGlobal() {
		return &openshellv1.ListSandboxPoliciesResponse{}, nil
	}
	b, err := g.find(ctx, req.GetWorkspaceScope(), req.GetSandbox())
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	p := newPager("ListSandboxPolicies", req)
	r := b.get()
	q := store.Query{Kind: kindPolicy, Scope: b.id, Newest: true, Limit: size}
	if q.After, err = p.key(req.GetPageToken()); err != nil {
		return nil, err
	}
	list, err := g.opts.Store.List(ctx, q)
	if err != nil {
		return nil, err
	}
	res := &openshellv1.ListSandboxPoliciesResponse{}
	for _, rec := range list {
		v, err := decodeRevision(rec)
		if err != nil {
			return nil, err
		}
		w, err := v.wire(r, false)
		if err != nil {
			return nil, err
		}
		res.Revisions = append(res.Revisions, w)
	}
	if len(list) == 0 && req.GetPageToken() == "" && r.s.Policy == 1 {
		v, err := g.revisionAt(ctx, r, 1)
		if err != nil {
			return nil, err
		}
		w, err := v.wire(r, false)
		res.Revisions = append(res.Revisions, w)
		return res, err
	}
	if len(list) == size {
		res.NextPageToken = p.token(store.KeyOf(q, list[len(list)-1]))
	}
	return res, nil
}

// snapshot is the effective configuration of a sandbox.
func (g *Gateway) snapshot(ctx context.Context, r *record) (*sandboxv1.SandboxConfigSnapshot, error) {
	s := &sandboxv1.SandboxConfigSnapshot{PolicySource: sandboxv1.PolicySource_POLICY_SOURCE_SANDBOX, Workspace: r.workspace,
		PolicyValidationFailureMode: "fail_closed", ConfigurationAdmitted: r.s.Activated, ConfigurationInstanceId: r.s.Life.InstanceID,
		ConfigurationError: r.s.ConfigError}
	if r.s.Policy > 0 {
		v, err := g.revisionAt(ctx, r, r.s.Policy)
		if err != nil {
			return nil, err
		}
		if s.Policy, err = v.wirePolicy(); err != nil {
			return nil, err
		}
		s.Version, s.PolicyHash = v.version, v.Hash
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(s.GetPolicyHash()))
	s.ConfigRevision = h.Sum64()
	return s, nil
}

// GetSandboxConfig implements the API for users and for the sandbox itself.
func (g *Gateway) GetSandboxConfig(ctx context.Context, req *sandboxv1.GetSandboxConfigRequest) (*sandboxv1.GetSandboxConfigResponse, error) {
	b, err := g.policyTarget(ctx, req.GetWorkspaceScope(), req.GetName())
	if err != nil {
		return nil, err
	}
	s, err := g.snapshot(ctx, b.get())
	if err != nil {
		return nil, err
	}
	// Both messages have the same fields with the same numbers.
	raw, err := proto.Marshal(s)
	if err != nil {
		return nil, err
	}
	res := &sandboxv1.GetSandboxConfigResponse{}
	return res, proto.Unmarshal(raw, res)
}

// pushPolicy tells a connected supervisor the newest revision if it has not
// reported it yet.
func (g *Gateway) pushPolicy(ctx context.Context, b *box, s *session) {
	r := b.get()
	if r.s.Policy == 0 || r.s.Policy == r.s.Loaded {
		return
	}
	snap, err := g.snapshot(ctx, r)
	if err == nil {
		err = s.send(&openshellv1.GatewayMessage{Payload: &openshellv1.GatewayMessage_ConfigUpdate{
			ConfigUpdate: &openshellv1.ConfigUpdate{UpdateId: newID(), SandboxConfig: snap}}})
	}
	if err != nil {
		g.log.Warn("policy not pushed; the supervisor gets it when it connects again", "sandbox", b.id, "err", fault.Detail(err))
	}
}

// configResult records what a supervisor made of a pushed configuration.
func (g *Gateway) configResult(ctx context.Context, b *box, m *openshellv1.ConfigUpdateResult) {
	if load := m.GetPolicyLoad(); load != nil {
		status := openshellv1.PolicyStatus_POLICY_STATUS_FAILED
		if load.GetLoaded() {
			status = openshellv1.PolicyStatus_POLICY_STATUS_LOADED
		}
		if err := g.recordLoad(ctx, b, load.GetVersion(), status, load.GetError()); err != nil {
			g.log.Error("policy status not stored", "sandbox", b.id, "err", fault.Detail(err))
		}
	}
	if f := m.GetFailure(); f != nil {
		b.hub.event(g.now(), "supervisor", "Warning", f.GetCode(), clip(f.GetMessage()), nil)
	}
}

// recordLoad stores whether a revision is in force.
func (g *Gateway) recordLoad(ctx context.Context, b *box, version uint32, status openshellv1.PolicyStatus, loadError string) error {
	if status != openshellv1.PolicyStatus_POLICY_STATUS_LOADED && status != openshellv1.PolicyStatus_POLICY_STATUS_FAILED {
		return invalid("status", "status must be LOADED or FAILED")
	}
	if version == 0 {
		return invalid("version", "version is required")
	}
	b.policy.Lock()
	defer b.policy.Unlock()
	v, err := g.revisionAt(ctx, b.get(), version)
	if errors.Is(err, store.ErrNotFound) {
		return fault.New(fault.NotFound, "policy revision not found")
	}
	if err != nil {
		return err
	}
	v.Status, v.Error = int32(status), clip(loadError)
	loaded := status == openshellv1.PolicyStatus_POLICY_STATUS_LOADED
	if loaded {
		v.Error, v.Loaded = "", g.now()
	}
	if err := g.putRevision(ctx, b.id, v); err != nil {
		return err
	}
	_, err = g.fleet.update(ctx, b, func(r *record) (bool, error) {
		if !loaded || r.s.Loaded >= version {
			return true, nil // the version moves on, so that watchers look again
		}
		r.s.Loaded = version
		return true, nil
	})
	return err
}
