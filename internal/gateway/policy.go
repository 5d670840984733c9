package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"openshell.dev/openshell/api/gen/datamodelv1"
	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/api/gen/sandboxv1"
	"openshell.dev/openshell/internal/authn"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/policy"
	"openshell.dev/openshell/internal/policyproto"
	"openshell.dev/openshell/internal/store"
)

// revision is one stored policy of a sandbox. It changes only in status.
type revision struct {
	Policy     []byte            `json:"policy"` // SandboxPolicy, protobuf
	Hash       string            `json:"hash"`
	Status     int32             `json:"status"` // PolicyStatus as last reported
	Error      string            `json:"error,omitempty"`
	Loaded     time.Time         `json:"loaded,omitzero"`
	Provenance map[string]string `json:"provenance,omitempty"`

	version uint32
	created time.Time
	row     uint64 // version of the record
	id      string
}

func (v *revision) wirePolicy() (*sandboxv1.SandboxPolicy, error) {
	p := &sandboxv1.SandboxPolicy{}
	if err := proto.Unmarshal(v.Policy, p); err != nil {
		return nil, fmt.Errorf("decode policy revision %d: %w", v.version, err)
	}
	return p, nil
}

// checkPolicy reads a wire policy and refuses, by name and place, what is not
// valid and what would silently not be enforced.
func checkPolicy(p *sandboxv1.SandboxPolicy) (*policy.Document, error) {
	doc, err := policyproto.Document(p)
	if err != nil || doc == nil {
		return nil, err
	}
	return doc, policy.NewError(doc, slices.Concat(policy.ReservedKeys(doc), policy.Unenforced(doc)))
}

// newRevision makes a revision of a policy.
func newRevision(version uint32, p *sandboxv1.SandboxPolicy, status openshellv1.PolicyStatus, provenance map[string]string) (*revision, error) {
	doc, err := policyproto.Document(p)
	if err != nil {
		return nil, err
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil {
		return nil, err
	}
	return &revision{version: version, Policy: raw, Hash: policy.Hash(doc), Status: int32(status), Provenance: provenance}, nil
}

func (g *Gateway) putRevision(ctx context.Context, box string, v *revision) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if v.id == "" {
		v.id = box + "." + strconv.FormatUint(uint64(v.version), 10)
	}
	r, err := g.opts.Store.Put(context.WithoutCancel(ctx), store.Record{Kind: kindPolicy, ID: v.id, Scope: box, Seq: uint64(v.version),
		Payload: payload, Created: v.created, Version: v.row})
	if err != nil {
		return err
	}
	v.row, v.created = r.Version, r.Created
	return nil
}

func (g *Gateway) revisionAt(ctx context.Context, r *record, version uint32) (*revision, error) {
	rec, err := g.opts.Store.Get(ctx, kindPolicy, r.id+"."+strconv.FormatUint(uint64(version), 10))
	if errors.Is(err, store.ErrNotFound) && version == 1 && r.spec.GetPolicy() != nil {
		// The first revision is the policy of the creation. It gets a record
		// of its own only when something happens to it.
		v, err := newRevision(1, r.spec.GetPolicy(), openshellv1.PolicyStatus_POLICY_STATUS_PENDING, nil)
		if err != nil {
			return nil, err
		}
		v.created = r.created
		if r.s.Loaded >= 1 {
			v.Status, v.Loaded = int32(openshellv1.PolicyStatus_POLICY_STATUS_LOADED), r.s.Life.MainStarted
		}
		return v, nil
	}
	if err != nil {
		return nil, err
	}
	return decodeRevision(rec)
}

func decodeRevision(rec store.Record) (*revision, error) {
	v := &revision{version: uint32(rec.Seq), created: rec.Created, row: rec.Version, id: rec.ID}
	return v, json.Unmarshal(rec.Payload, v)
}

// effectivePolicy returns the document that the next run starts with.
func (g *Gateway) effectivePolicy(ctx context.Context, r *record) ([]byte, uint32, error) {
	if r.s.Policy == 0 {
		return nil, 0, nil
	}
	v, err := g.revisionAt(ctx, r, r.s.Policy)
	if err == nil && v.Status == int32(openshellv1.PolicyStatus_POLICY_STATUS_FAILED) && r.s.Loaded != 0 {
		v, err = g.revisionAt(ctx, r, r.s.Loaded)
	}
	if err != nil {
		return nil, 0, err
	}
	p, err := v.wirePolicy()
	if err != nil {
		return nil, 0, err
	}
	body, err := policyproto.JSON(p)
	return body, v.version, err
}

// UpdateConfig implements the API: the policy of one sandbox.
func (g *Gateway) UpdateConfig(ctx context.Context, req *openshellv1.UpdateConfigRequest) (*openshellv1.UpdateConfigResponse, error) {
	given := 0
	for _, is := range []bool{req.GetPolicy() != nil, req.GetSettingKey() != "", len(req.GetMergeOperations()) > 0} {
		if is {
			given++
		}
	}
	switch {
	case given == 0:
		return nil, invalid("", "one of policy, setting_key, or merge_operations must be provided")
	case given > 1:
		return nil, invalid("", "policy, setting_key, and merge_operations are mutually exclusive")
	case req.GetGlobal():
		return nil, fault.New(fault.Unsupported, "a global policy is not served by this gateway yet").On("global")
	case req.GetPolicy() == nil:
		return nil, fault.New(fault.Unsupported, "settings and merge operations are not served by this gateway yet")
	case req.GetDeleteSetting():
		return nil, invalid("delete_setting", "delete_setting does not go with a policy")
	}
	if err := checkMeta(nil, req.GetAnnotations()); err != nil {
		return nil, err
	}
	b, err := g.policyTarget(ctx, req.GetWorkspaceScope(), req.GetSandbox())
	if err != nil {
		return nil, err
	}
	return admit(ctx, g, "UpdateConfig", b.get().workspace, req.GetRequestId(), req, nil, func(ctx context.Context) (*openshellv1.UpdateConfigResponse, string, error) {
		res, err := g.setPolicy(ctx, b, req)
		return res, b.id, err
	})
}

// policyTarget finds the sandbox for a user, or checks that a sandbox means
// itself.
func (g *Gateway) policyTarget(ctx context.Context, s *datamodelv1.WorkspaceSelector, name string) (*box, error) {
	p := principal(ctx)
	if p.Kind != authn.Sandbox {
		return g.find(ctx, s, name)
	}
	b, err := g.fleet.byID(string(p.SandboxID))
	if err != nil {
		return nil, err
	}
	r := b.get()
	if ws := s.GetWorkspace(); (s != nil && ws != r.workspace) || (name != "" && name != r.name) {
		return nil, fault.New(fault.PermissionDenied, "cross-sandbox access denied: principal does not own this sandbox")
	}
	return b, nil
}

func (g *Gateway) setPolicy(ctx context.Context, b *box, req *openshellv1.UpdateConfigRequest) (*openshellv1.UpdateConfigResponse, error) {
	b.policy.Lock()
	defer b.policy.Unlock()
	r := b.get()
	if want := req.GetExpectedResourceVersion(); want != 0 && want != r.version {
		return nil, &store.ConflictError{Current: r.version}
	}
	doc, err := checkPolicy(req.GetPolicy())
	if err != nil {
		return nil, err
	}
	latest := r.s.Policy
	if latest > 0 {
		old, err := g.revisionAt(ctx, r, latest)
		if err != nil {
			return nil, err
		}
		before, err := old.wirePolicy()
		if err != nil {
			return nil, err
		}
		beforeDoc, err := policyproto.Document(before)
		if err == nil && r.s.Activated {
			if err := staticParts(beforeDoc, doc); err != nil {
				return nil, err
			}
		}
		if old.Hash == policy.Hash(doc) && len(req.GetAnnotations()) == 0 {
			return &openshellv1.UpdateConfigResponse{Version: latest, PolicyHash: old.Hash, Annotations: r.annotations}, nil
		}
		if old.row == 0 { // keep the first revision for the history
			if err := g.putRevision(ctx, b.id, old); err != nil {
				return nil, err
			}
		}
	}
	v, err := newRevision(latest+1, req.GetPolicy(), openshellv1.PolicyStatus_POLICY_STATUS_PENDING, req.GetAnnotations())
	if err != nil {
		return nil, err
	}
	if err := g.putRevision(ctx, b.id, v); err != nil {
		return nil, err
	}
	if r, err = g.fleet.update(ctx, b, func(r *record) (bool, error) {
		r.s.Policy = v.version
		if len(req.GetAnnotations()) > 0 {
			if r.annotations == nil {
				r.annotations = map[string]string{}
			}
			maps.Copy(r.annotations, req.GetAnnotations())
		}
		return true, nil
	}); err != nil {
		return nil, err
	}
	if s := b.session(); s != nil && s.push {
		g.pushPolicy(ctx, b, s)
	}
	return &openshellv1.UpdateConfigResponse{Version: v.version, PolicyHash: v.Hash, Annotations: r.annotations}, g.opts.Store.Sync(context.WithoutCancel(ctx))
}

// staticParts refuses what a running sandbox cannot take over: those parts
// are applied once, at its start.
func staticParts(before, after *policy.Document) error {
	bad := func(field, format string, args ...any) error {
		return invalid("policy."+field, format, args...)
	}
	if before.EffectiveLandlock() != after.EffectiveLandlock() {
		return bad("landlock", "landlock policy cannot be changed on a live sandbox (applied at startup)")
	}
	var was, is policy.Process
	if before.Process != nil {
		was = *before.Process
	}
	if after.Process != nil {
		is = *after.Process
	}
	if was != is {
		return bad("process", "process policy cannot be changed on a live sandbox (applied at startup)")
	}
	old, now := before.EffectiveFilesystem(), after.EffectiveFilesystem()
	if old.IncludeWorkdir != now.IncludeWorkdir {
		return bad("filesystem.include_workdir", "filesystem include_workdir cannot be changed on a live sandbox")
	}
	for _, p := range old.ReadOnly {
		if !slices.Contains(now.ReadOnly, p) {
			return bad("filesystem.read_only", "filesystem read_only path '%s' cannot be removed on a live sandbox", p)
		}
	}
	for _, p := range old.ReadWrite {
		if !slices.Contains(now.ReadWrite, p) {
			return bad("filesystem.read_write", "filesystem read_write path '%s' cannot be removed on a live sandbox", p)
		}
	}
	return nil
}
