package gateway

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/timestamppb"

	"openshell.dev/openshell/api/gen/datamodelv1"
	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/store"
)

const defaultWorkspace = "default"

// ensureDefaultWorkspace makes the workspace that always exists.
func (g *Gateway) ensureDefaultWorkspace(ctx context.Context) error {
	_, err := g.opts.Store.Find(ctx, kindWorkspace, "", defaultWorkspace)
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	_, err = g.opts.Store.Put(ctx, store.Record{Kind: kindWorkspace, ID: newID(), Name: defaultWorkspace})
	return err
}

// scope returns the workspace a request names, if it exists and the caller
// may use it.
func (g *Gateway) scope(ctx context.Context, s *datamodelv1.WorkspaceSelector) (string, error) {
	name, err := single(s)
	if err != nil {
		return "", err
	}
	return name, g.mayUse(ctx, name)
}

func (g *Gateway) mayUse(ctx context.Context, name string) error {
	if p := principal(ctx); !p.Admin() {
		return fault.New(fault.PermissionDenied, "not a member of workspace '%s'", name)
	}
	if name == defaultWorkspace {
		return nil // it cannot be deleted
	}
	_, err := g.opts.Store.Find(ctx, kindWorkspace, "", name)
	if errors.Is(err, store.ErrNotFound) {
		return fault.New(fault.NotFound, "workspace '%s' not found", name)
	}
	return err
}

// GetWorkspace implements the API.
func (g *Gateway) GetWorkspace(ctx context.Context, req *openshellv1.GetWorkspaceRequest) (*openshellv1.GetWorkspaceResponse, error) {
	if req.GetName() == "" {
		return nil, invalid("name", "name is required")
	}
	r, err := g.opts.Store.Find(ctx, kindWorkspace, "", req.GetName())
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.New(fault.NotFound, "workspace not found")
	}
	if err != nil {
		return nil, err
	}
	return &openshellv1.GetWorkspaceResponse{Workspace: wireWorkspace(r)}, nil
}

// ListWorkspaces implements the API.
func (g *Gateway) ListWorkspaces(ctx context.Context, req *openshellv1.ListWorkspacesRequest) (*openshellv1.ListWorkspacesResponse, error) {
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	labels, err := selector(req.GetLabelSelector())
	if err != nil {
		return nil, err
	}
	p := newPager("ListWorkspaces", req)
	after, err := p.key(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	q := store.Query{Kind: kindWorkspace, Labels: labels, After: after, Limit: size}
	list, err := g.opts.Store.List(ctx, q)
	if err != nil {
		return nil, err
	}
	res := &openshellv1.ListWorkspacesResponse{}
	for _, r := range list {
		res.Workspaces = append(res.Workspaces, wireWorkspace(r))
	}
	if len(list) == size {
		res.NextPageToken = p.token(store.KeyOf(q, list[len(list)-1]))
	}
	return res, nil
}

func wireWorkspace(r store.Record) *datamodelv1.Workspace {
	return &datamodelv1.Workspace{
		Metadata: &datamodelv1.ObjectMeta{Id: r.ID, Name: r.Name, CreatedTime: timestamppb.New(r.Created), Labels: r.Labels, ResourceVersion: r.Version},
		Status:   &datamodelv1.WorkspaceStatus{Phase: datamodelv1.WorkspacePhase_WORKSPACE_PHASE_ACTIVE},
	}
}
