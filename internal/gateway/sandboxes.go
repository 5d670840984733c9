package gateway

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"openshell.dev/openshell/api/gen/datamodelv1"
	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/model"
	"openshell.dev/openshell/internal/store"
)

// CreateSandbox implements the API. The answer is held a moment, so that a
// fast sandbox is Ready in it; the wait for the disk goes on meanwhile.
func (g *Gateway) CreateSandbox(ctx context.Context, req *openshellv1.CreateSandboxRequest) (*openshellv1.SandboxResponse, error) {
	ws, err := g.scope(ctx, req.GetWorkspaceScope())
	if err != nil {
		return nil, err
	}
	r, err := g.newRecord(ws, req)
	if err != nil {
		return nil, err
	}
	return admit(ctx, g, "CreateSandbox", ws, req.GetRequestId(), req, g.sandboxReplay, func(ctx context.Context) (*openshellv1.SandboxResponse, string, error) {
		b, err := g.createSandbox(ctx, r, req.GetName() == "")
		if err != nil {
			return nil, "", err
		}
		return &openshellv1.SandboxResponse{Sandbox: b.get().wire()}, b.id, nil
	})
}

func (g *Gateway) createSandbox(ctx context.Context, r *record, named bool) (*box, error) {
	var b *box
	var err error
	for try := 0; ; try++ {
		if b, err = g.fleet.create(context.WithoutCancel(ctx), r); fault.KindOf(err) != fault.AlreadyExists || !named || try == 20 {
			break
		}
		r.name = newName()
	}
	if err != nil {
		return nil, err
	}
	// The machine may lose power only after the answer; until then nothing
	// is promised, so the disk works while the sandbox starts.
	synced := make(chan error, 1)
	g.detached(func(ctx context.Context) { synced <- g.opts.Store.Sync(ctx) })
	b.ops.Lock()
	err = g.fleet.launch(g.base, b, b.get(), g.opts.Driver.Create)
	b.ops.Unlock()
	if err != nil { // nothing half-made stays
		undo := errors.Join(g.opts.Driver.Delete(g.base, model.SandboxID(b.id)), g.fleet.forget(ctx, b))
		<-synced
		if fault.KindOf(err) == fault.Internal {
			err = fault.New(fault.Internal, "create sandbox failed").Cause(errors.Join(err, undo))
		}
		return nil, err
	}
	if g.opts.CreateHold > 0 {
		hold, cancel := context.WithTimeout(ctx, g.opts.CreateHold)
		defer cancel()
		if _, err := b.wait(hold, func(r *record) bool { return r.s.Life.Settled() }); err != nil && fault.KindOf(err) == fault.NotFound {
			return nil, err
		}
	}
	return b, <-synced
}

// newRecord checks a create request and makes the record it asks for.
func (g *Gateway) newRecord(ws string, req *openshellv1.CreateSandboxRequest) (*record, error) {
	spec := &openshellv1.SandboxSpec{}
	if req.GetSpec() != nil {
		spec = proto.CloneOf(req.GetSpec())
	}
	name := req.GetName()
	if name == "" {
		name = newName()
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	if err := checkMeta(req.GetLabels(), req.GetAnnotations()); err != nil {
		return nil, err
	}
	if err := g.checkSpec(spec, req); err != nil {
		return nil, err
	}
	if spec.GetRestartPolicy() == openshellv1.SandboxRestartPolicy_SANDBOX_RESTART_POLICY_UNSPECIFIED {
		spec.RestartPolicy = openshellv1.SandboxRestartPolicy_SANDBOX_RESTART_POLICY_NEVER
	}
	spec.ProviderAttachmentEpoch = ""
	now := g.now()
	r := &record{id: newID(), name: name, workspace: ws, labels: req.GetLabels(), annotations: req.GetAnnotations(), created: now, spec: spec}
	r.s.Await = req.GetAwaitMainProcessAttachment()
	if spec.GetPolicy() != nil {
		r.s.Policy = 1
	}
	r.s.Life.Create(now, newID(), model.RestartPolicy(spec.GetRestartPolicy()), now.Add(g.opts.ImagePreparation))
	return r, nil
}

func (g *Gateway) checkSpec(spec *openshellv1.SandboxSpec, req *openshellv1.CreateSandboxRequest) error {
	switch {
	case req.GetWorkloadTemplate() != "":
		return fault.New(fault.Unsupported, "sandbox templates are not served by this gateway yet").On("workload_template")
	case len(req.GetServiceExposures()) > 0:
		return fault.New(fault.Unsupported, "services are not served by this gateway yet").On("service_exposures")
	case len(spec.GetProviders()) > 0:
		return precondition("provider '%s' not found", spec.GetProviders()[0]).On("spec.providers")
	case len(spec.GetLogLevel()) > 32:
		return invalid("spec.log_level", "log_level is longer than 32 characters")
	case spec.GetRestartPolicy() < 0 || spec.GetRestartPolicy() > openshellv1.SandboxRestartPolicy_SANDBOX_RESTART_POLICY_ALWAYS:
		return invalid("spec.restart_policy", "unknown restart policy %d", spec.GetRestartPolicy())
	}
	t := spec.GetTemplate()
	switch {
	case len(t.GetImage()) > 1024:
		return invalid("spec.template.image", "the image reference is longer than 1024 characters")
	case t.GetRuntimeClassName() != "":
		return fault.New(fault.Unsupported, "driver %q has no runtime classes", g.driver.Name).On("spec.template.runtime_class_name")
	case t.GetAgentSocket() != "":
		return fault.New(fault.Unsupported, "agent_socket is not served").On("spec.template.agent_socket")
	}
	if err := checkCommand("spec.command", spec.GetCommand(), 256, 256<<10); err != nil {
		return err
	}
	for field, env := range map[string]map[string]string{"spec.environment": spec.GetEnvironment(), "spec.template.environment": t.GetEnvironment()} {
		if err := checkEnv(field, env, 128, 8192, 256<<10); err != nil {
			return err
		}
	}
	limits, err := limitsOf(spec)
	switch {
	case err != nil:
		return err
	case limits.GPUs > 0 && !g.driver.GPU:
		return precondition("driver %q has no GPUs", g.driver.Name).On("spec.resource_requirements.gpu")
	}
	if proto.Size(spec.GetPolicy()) > 4<<20 {
		return invalid("spec.policy", "the policy is too large")
	}
	_, err = checkPolicy(spec.GetPolicy())
	return err
}

// GetSandbox implements the API.
func (g *Gateway) GetSandbox(ctx context.Context, req *openshellv1.GetSandboxRequest) (*openshellv1.SandboxResponse, error) {
	b, err := g.find(ctx, req.GetWorkspaceScope(), req.GetName())
	if err != nil {
		return nil, err
	}
	return &openshellv1.SandboxResponse{Sandbox: b.get().wire()}, nil
}

// find resolves a workspace selector and a name.
func (g *Gateway) find(ctx context.Context, s *datamodelv1.WorkspaceSelector, name string) (*box, error) {
	ws, err := g.scope(ctx, s)
	if err != nil {
		return nil, err
	}
	return g.fleet.byName(ws, name)
}

// ListSandboxes implements the API. A page ends early when its bytes would
// pass what stock clients accept.
func (g *Gateway) ListSandboxes(ctx context.Context, req *openshellv1.ListSandboxesRequest) (*openshellv1.ListSandboxesResponse, error) {
	q := store.Query{Kind: kindSandbox}
	if _, all := req.GetWorkspaceScope().GetSelection().(*datamodelv1.WorkspaceSelector_AllWorkspaces); all {
		if !principal(ctx).Admin() {
			return nil, fault.New(fault.PermissionDenied, "platform admin role required for cross-workspace operations")
		}
		q.AllWorkspaces = true
	} else {
		ws, err := g.scope(ctx, req.GetWorkspaceScope())
		if err != nil {
			return nil, err
		}
		q.Workspace = ws
	}
	var err error
	if q.Labels, err = selector(req.GetLabelSelector()); err != nil {
		return nil, err
	}
	if q.Limit, err = pageSize(req.GetPageSize()); err != nil {
		return nil, err
	}
	p := newPager("ListSandboxes", req)
	if q.After, err = p.key(req.GetPageToken()); err != nil {
		return nil, err
	}
	list, err := g.opts.Store.List(ctx, q)
	if err != nil {
		return nil, err
	}
	res := &openshellv1.ListSandboxesResponse{}
	bytes := 0
	for i, s := range list {
		b, err := g.fleet.byID(s.ID)
		if err != nil {
			continue // deleted meanwhile
		}
		w := b.get().wire()
		size := proto.Size(w)
		if i > 0 && bytes+size > maxPageBytes {
			res.NextPageToken = p.token(store.KeyOf(q, list[i-1]))
			return res, nil
		}
		bytes += size
		res.Sandboxes = append(res.Sandboxes, w)
	}
	if len(list) == q.Limit {
		res.NextPageToken = p.token(store.KeyOf(q, list[len(list)-1]))
	}
	return res, nil
}

// holdFor is how long stop and delete wait for the driver before they answer
// that it goes on.
const holdFor = 5 * time.Second

// StopSandbox implements the API.
func (g *Gateway) StopSandbox(ctx context.Context, req *openshellv1.StopSandboxRequest) (*openshellv1.SandboxResponse, error) {
	b, err := g.find(ctx, req.GetWorkspaceScope(), req.GetName())
	if err != nil {
		return nil, err
	}
	return admit(ctx, g, "StopSandbox", b.get().workspace, req.GetRequestId(), req, g.sandboxReplay, func(ctx context.Context) (*openshellv1.SandboxResponse, string, error) {
		stopping := false
		if _, err := g.fleet.update(ctx, b, func(r *record) (bool, error) {
			var err error
			if stopping, err = r.s.Life.Stop(g.now()); err != nil {
				return false, precondition("%v", err)
			}
			return stopping, nil
		}); err != nil {
			return nil, "", err
		}
		if stopping {
			if err := g.withSync(ctx, func(ctx context.Context) error { return g.fleet.finishStop(ctx, b) }); err != nil {
				return nil, "", err
			}
		}
		return &openshellv1.SandboxResponse{Sandbox: b.get().wire()}, b.id, nil
	})
}

// withSync does work for at most holdFor while what is stored reaches the disk.
func (g *Gateway) withSync(ctx context.Context, work func(context.Context) error) error {
	synced := make(chan error, 1)
	g.detached(func(ctx context.Context) { synced <- g.opts.Store.Sync(ctx) })
	_, err := g.until(ctx, holdFor, work)
	return errors.Join(err, <-synced)
}

// StartSandbox implements the API.
func (g *Gateway) StartSandbox(ctx context.Context, req *openshellv1.StartSandboxRequest) (*openshellv1.SandboxResponse, error) {
	b, err := g.find(ctx, req.GetWorkspaceScope(), req.GetName())
	if err != nil {
		return nil, err
	}
	return admit(ctx, g, "StartSandbox", b.get().workspace, req.GetRequestId(), req, g.sandboxReplay, func(ctx context.Context) (*openshellv1.SandboxResponse, string, error) {
		b.ops.Lock()
		begun := false
		r, err := g.fleet.update(ctx, b, func(r *record) (bool, error) {
			var err error
			if begun, err = r.s.Life.Start(g.now(), newID(), g.now().Add(g.opts.ImagePreparation)); err != nil {
				return false, precondition("%v", err)
			}
			r.s.Await = r.s.Await && !begun // only the creating client attaches to the first run
			return begun, nil
		})
		if err == nil && begun {
			g.fleet.drop(b, "the sandbox is started again")
			if err = g.dropSSH(ctx, b.id); err == nil {
				err = g.fleet.launch(g.base, b, r, g.opts.Driver.Start)
			}
		}
		b.ops.Unlock()
		if err != nil {
			return nil, "", err
		}
		if begun && g.opts.CreateHold > 0 {
			hold, cancel := context.WithTimeout(ctx, g.opts.CreateHold)
			_, _ = b.wait(hold, func(r *record) bool { return r.s.Life.Settled() })
			cancel()
		}
		return &openshellv1.SandboxResponse{Sandbox: b.get().wire()}, b.id, g.opts.Store.Sync(context.WithoutCancel(ctx))
	})
}

// DeleteSandbox implements the API.
func (g *Gateway) DeleteSandbox(ctx context.Context, req *openshellv1.DeleteSandboxRequest) (*openshellv1.DeleteSandboxResponse, error) {
	ws, err := g.scope(ctx, req.GetWorkspaceScope())
	if err != nil {
		return nil, err
	}
	if req.GetName() == "" {
		return nil, invalid("name", "name is required")
	}
	return admit(ctx, g, "DeleteSandbox", ws, req.GetRequestId(), req, nil, func(ctx context.Context) (*openshellv1.DeleteSandboxResponse, string, error) {
		b, err := g.fleet.byName(ws, req.GetName())
		if err != nil {
			if fault.KindOf(err) == fault.NotFound && req.GetAllowMissing() {
				return &openshellv1.DeleteSandboxResponse{Outcome: openshellv1.DeletionOutcome_DELETION_OUTCOME_ALREADY_ABSENT}, "", nil
			}
			return nil, "", err
		}
		outcome, err := g.deleteSandbox(ctx, b)
		if err != nil {
			return nil, "", err
		}
		return &openshellv1.DeleteSandboxResponse{Outcome: outcome, SandboxId: b.id}, b.id, nil
	})
}

// deleteSandbox marks a sandbox as going and ends it. The mark on the disk is
// what is promised: a power cut after the answer resumes the deletion.
func (g *Gateway) deleteSandbox(ctx context.Context, b *box) (openshellv1.DeletionOutcome, error) {
	if _, err := g.fleet.life(ctx, b, func(l *model.Lifecycle) bool { return l.Delete(g.now()) }); err != nil {
		return 0, err
	}
	synced := make(chan error, 1)
	g.detached(func(ctx context.Context) { synced <- g.opts.Store.Sync(ctx) })
	done, err := g.until(context.WithoutCancel(ctx), holdFor, func(ctx context.Context) error { return g.fleet.finishDelete(ctx, b) })
	if err = errors.Join(err, <-synced); err != nil {
		return 0, fault.New(fault.Internal, "delete sandbox failed").Cause(err)
	}
	if !done {
		return openshellv1.DeletionOutcome_DELETION_OUTCOME_ACCEPTED, nil
	}
	return openshellv1.DeletionOutcome_DELETION_OUTCOME_COMPLETED, nil
}

// sandboxReplay answers a repeated request with the sandbox as it is now.
func (g *Gateway) sandboxReplay(_ context.Context, id string) (proto.Message, error) {
	b, err := g.fleet.byID(id)
	if err != nil {
		return nil, precondition("the sandbox of the first request is gone").Because(reasonNoReplay)
	}
	return &openshellv1.SandboxResponse{Sandbox: b.get().wire()}, nil
}
