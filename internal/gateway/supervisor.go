package gateway

import (
	"context"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/model"
	"openshell.dev/openshell/internal/relay"
)

// maxBatch is how many lines of one pushed batch are kept.
const maxBatch = 100

// ReportMainProcessExit implements the supervisor's report. OK means stored
// on the disk; a stale instance is OK and changes nothing.
func (g *Gateway) ReportMainProcessExit(ctx context.Context, req *openshellv1.ReportMainProcessExitRequest) (*openshellv1.ReportMainProcessExitResponse, error) {
	b, err := g.ownSandbox(ctx, req.GetSandboxId())
	if err != nil {
		return nil, err
	}
	if req.GetInstanceId() == "" {
		return nil, invalid("instance_id", "instance_id is required")
	}
	why := ""
	if info, ok := connect.CallInfoForHandlerContext(ctx); ok {
		why = clip(info.RequestHeader().Get(relay.HeaderExitDetail))
	}
	if _, err := g.fleet.life(ctx, b, func(l *model.Lifecycle) bool {
		return l.Exited(g.now(), req.GetInstanceId(), req.GetExitCode(), why)
	}); err != nil {
		return nil, err
	}
	return &openshellv1.ReportMainProcessExitResponse{}, g.opts.Store.Sync(ctx)
}

// FinalizeMainProcessExit says that the output of the main process reached
// whoever waited for it. An ephemeral sandbox goes now.
func (g *Gateway) FinalizeMainProcessExit(ctx context.Context, req *openshellv1.FinalizeMainProcessExitRequest) (*openshellv1.FinalizeMainProcessExitResponse, error) {
	b, err := g.ownSandbox(ctx, req.GetSandboxId())
	if err != nil {
		return nil, err
	}
	r := b.get()
	l := r.s.Life
	ended := l.Phase == model.PhaseCompleted || (l.Phase == model.PhaseError && l.Reason == model.ReasonFailed)
	if req.GetInstanceId() == l.InstanceID && ended && r.ephemeral() {
		if _, err := g.fleet.life(ctx, b, func(l *model.Lifecycle) bool { return l.Delete(g.now()) }); err != nil {
			return nil, err
		}
		g.detached(func(ctx context.Context) {
			if err := g.fleet.finishDelete(ctx, b); err != nil {
				g.log.Error("ephemeral sandbox not deleted", "sandbox", b.id, "err", fault.Detail(err))
			}
		})
	}
	return &openshellv1.FinalizeMainProcessExitResponse{}, nil
}

// ReportPolicyStatus implements the supervisor's report.
func (g *Gateway) ReportPolicyStatus(ctx context.Context, req *openshellv1.ReportPolicyStatusRequest) (*openshellv1.ReportPolicyStatusResponse, error) {
	b, err := g.ownSandbox(ctx, req.GetSandboxId())
	if err != nil {
		return nil, err
	}
	return &openshellv1.ReportPolicyStatusResponse{}, g.recordLoad(ctx, b, req.GetVersion(), req.GetStatus(), req.GetLoadError())
}

// ReportSandboxConfiguration implements the supervisor's report on whether it
// accepts its configuration.
func (g *Gateway) ReportSandboxConfiguration(ctx context.Context, req *openshellv1.ReportSandboxConfigurationRequest) (*openshellv1.ReportSandboxConfigurationResponse, error) {
	b, err := g.ownSandbox(ctx, req.GetSandboxId())
	if err != nil {
		return nil, err
	}
	a := req.GetAdmission()
	if a == nil {
		return nil, invalid("admission", "admission is required")
	}
	if want := req.GetExpectedInstanceId(); want != "" && want != b.get().s.Life.InstanceID {
		return nil, precondition("the instance is not the current one")
	}
	_, err = g.fleet.update(ctx, b, func(r *record) (bool, error) {
		if a.GetInstanceId() != r.s.Life.InstanceID {
			return false, nil
		}
		switch a.GetState() {
		case openshellv1.ConfigurationAdmissionState_CONFIGURATION_ADMISSION_STATE_REJECTED:
			text := clip(a.GetError())
			if text == "" {
				text = "the supervisor refused the configuration"
			}
			changed := r.s.ConfigError != text
			r.s.ConfigError = text
			return changed, nil
		case openshellv1.ConfigurationAdmissionState_CONFIGURATION_ADMISSION_STATE_ACCEPTED:
			changed := r.s.ConfigError != ""
			r.s.ConfigError = ""
			return changed, nil
		}
		return false, nil
	})
	return &openshellv1.ReportSandboxConfigurationResponse{}, err
}

// PushSandboxLogs implements the supervisor's log stream.
func (g *Gateway) PushSandboxLogs(ctx context.Context, stream *connect.ClientStream[openshellv1.PushSandboxLogsRequest]) (*openshellv1.PushSandboxLogsResponse, error) {
	var b *box
	for stream.Receive() {
		m := stream.Msg()
		if b == nil {
			var err error
			if b, err = g.ownSandbox(ctx, m.GetSandboxId()); err != nil {
				return nil, err
			}
		}
		if m.GetSandboxId() != b.id {
			return nil, fault.New(fault.PermissionDenied, "log stream sandbox_id changed after validation")
		}
		lines := m.GetLogs()
		for _, l := range lines[:min(len(lines), maxBatch)] {
			b.hub.line(g.cleanLine(b, l))
		}
	}
	if err := stream.Err(); err != nil && ctx.Err() == nil {
		return nil, err
	}
	return &openshellv1.PushSandboxLogsResponse{}, nil
}

// cleanLine bounds a line and puts in what the supervisor may not say.
func (g *Gateway) cleanLine(b *box, l *openshellv1.SandboxLogLine) *openshellv1.SandboxLogLine {
	out := &openshellv1.SandboxLogLine{SandboxId: b.id, EventTime: l.GetEventTime(), Level: cut(l.GetLevel(), 16), Target: cut(l.GetTarget(), 128),
		Message: cut(l.GetMessage(), 8<<10), Source: "sandbox"}
	if out.EventTime.CheckValid() != nil {
		out.EventTime = timestamppb.New(g.now())
	}
	for k, v := range l.GetFields() {
		if len(out.Fields) == 64 {
			break
		}
		if out.Fields == nil {
			out.Fields = map[string]string{}
		}
		out.Fields[cut(k, 128)] = cut(v, 4<<10)
	}
	return out
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// RefreshSandboxToken implements the supervisor's renewal. The old token stays
// good until it expires.
func (g *Gateway) RefreshSandboxToken(ctx context.Context, req *openshellv1.RefreshSandboxTokenRequest) (*openshellv1.RefreshSandboxTokenResponse, error) {
	p := principal(ctx)
	b, err := g.fleet.byID(string(p.SandboxID))
	if err != nil {
		return nil, err
	}
	if len(req.GetExtensionServiceNames()) > 0 {
		return nil, fault.New(fault.PermissionDenied, "extension service '%s' is not selected by the sandbox policy", clip(req.GetExtensionServiceNames()[0]))
	}
	r := b.get()
	if p.InstanceID != "" && p.InstanceID != r.s.Life.InstanceID {
		return nil, fault.New(fault.PermissionDenied, "this run of the sandbox is over")
	}
	token, expires, err := g.opts.Tokens.Mint(p.SandboxID, p.InstanceID)
	if err != nil {
		return nil, err
	}
	res := &openshellv1.RefreshSandboxTokenResponse{Token: token.Reveal(), SandboxToken: token.Reveal(), ExpirationTime: stamp(expires), SandboxExpirationTime: stamp(expires)}
	if s := b.session(); s != nil {
		res.SessionId = s.id
	}
	return res, nil
}
