package cli

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/creack/pty"
	"golang.org/x/crypto/ssh"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"openshell.dev/openshell/api/gen/datamodelv1"
	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/api/gen/openshellv1/openshellv1connect"
	"openshell.dev/openshell/api/gen/sandboxv1"
)

// fake is a gateway whose sandboxes are processes of this host: enough of the
// contract to hold the command line to it.
type fake struct {
	openshellv1connect.UnimplementedOpenShellHandler
	url     string
	version string
	signer  ssh.Signer
	echo    string // address of a server that answers in upper case

	mu      sync.Mutex
	boxes   map[string]*box
	changed chan struct{} // closed and replaced at every change
	count   int
	logins  int
	revoked int
}

type box struct {
	s        *openshellv1.Sandbox
	main     *mainProcess
	policies []*openshellv1.SandboxPolicyRevision
	drop     int // attachments that lose their connection
}

func startFake(t testing.TB) *fake {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{version: "0.1.9-fake", signer: signer, boxes: map[string]*box{}, changed: make(chan struct{})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.url = "http://" + l.Addr().String()
	mux := http.NewServeMux()
	mux.Handle(openshellv1connect.NewOpenShellHandler(f))
	srv := &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(l) })
	e, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.echo = e.Addr().String()
	serving.Go(func() {
		for {
			c, err := e.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				body, _ := io.ReadAll(c)
				_, _ = c.Write(bytes.ToUpper(body))
			})
		}
	})
	t.Cleanup(func() {
		_ = e.Close()
		_ = srv.Close()
		f.mu.Lock()
		for _, b := range f.boxes {
			b.main.kill()
		}
		f.mu.Unlock()
		serving.Wait()
	})
	return f
}

// wireError is an error with details, as a gateway sends it.
func wireError(code connect.Code, text string, details ...proto.Message) error {
	e := connect.NewError(code, errors.New(text))
	for _, d := range details {
		if detail, err := connect.NewErrorDetail(d); err == nil {
			e.AddDetail(detail)
		}
	}
	return e
}

func (f *fake) touch() {
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fake) find(scope *datamodelv1.WorkspaceSelector, name string) (*box, error) {
	if scope.GetWorkspace() == "" {
		return nil, wireError(connect.CodeInvalidArgument, "workspace_scope is required", &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "workspace_scope"}}})
	}
	b := f.boxes[name]
	if b == nil || b.s.Metadata.Workspace != scope.GetWorkspace() {
		return nil, wireError(connect.CodeNotFound, fmt.Sprintf("sandbox %q not found", name))
	}
	return b, nil
}

func (f *fake) Health(context.Context, *openshellv1.HealthRequest) (*openshellv1.HealthResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &openshellv1.HealthResponse{Status: openshellv1.ServiceStatus_SERVICE_STATUS_HEALTHY, Version: f.version}, nil
}

func (f *fake) GetGatewayInfo(context.Context, *openshellv1.GetGatewayInfoRequest) (*openshellv1.GetGatewayInfoResponse, error) {
	return &openshellv1.GetGatewayInfoResponse{Status: openshellv1.ServiceStatus_SERVICE_STATUS_HEALTHY, GatewayVersion: f.version,
		ComputeDrivers: []*openshellv1.ComputeDriverInfo{{Name: "fake", Capabilities: &openshellv1.ComputeDriverCapabilities{DriverName: "fake", DriverVersion: "1"}}}}, nil
}

func (f *fake) GetCurrentUser(context.Context, *openshellv1.GetCurrentUserRequest) (*openshellv1.GetCurrentUserResponse, error) {
	return &openshellv1.GetCurrentUserResponse{Subject: "me", DisplayName: "Me", Roles: []string{"openshell-admin"}, IdentityProvider: "local_dev"}, nil
}

func (f *fake) CreateSandbox(_ context.Context, req *openshellv1.CreateSandboxRequest) (*openshellv1.SandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := req.GetName()
	if name == "" {
		f.count++
		name = "brave-" + strings.Repeat("o", f.count) + "tter"
	}
	if _, taken := f.boxes[name]; taken {
		return nil, wireError(connect.CodeAlreadyExists, fmt.Sprintf("sandbox %q already exists", name))
	}
	if slices.Contains(req.GetSpec().GetProviders(), "broken") {
		return nil, wireError(connect.CodeUnavailable, "the store is locked", &errdetails.ErrorInfo{Reason: "MUTATION_LOCK_TIMEOUT"}, &errdetails.RetryInfo{RetryDelay: durationpb.New(3 * time.Second)})
	}
	f.count++
	b := &box{s: &openshellv1.Sandbox{
		Metadata: &datamodelv1.ObjectMeta{Id: fmt.Sprintf("id-%d", f.count), Name: name, Workspace: req.GetWorkspaceScope().GetWorkspace(), Labels: req.GetLabels(), Annotations: req.GetAnnotations(),
			ResourceVersion: 1, CreatedTime: timestamppb.New(time.Unix(1700000000, 0))},
		Spec: req.GetSpec(), Status: &openshellv1.SandboxStatus{Phase: openshellv1.SandboxPhase_SANDBOX_PHASE_PROVISIONING, CurrentPolicyVersion: 1}}}
	b.policies = []*openshellv1.SandboxPolicyRevision{{Version: 1, PolicyHash: "aaaaaaaaaaaaaaaaaaaa", Status: openshellv1.PolicyStatus_POLICY_STATUS_LOADED, CreatedTime: b.s.Metadata.CreatedTime, Policy: req.GetSpec().GetPolicy()}}
	f.boxes[name] = b
	switch {
	case strings.HasPrefix(name, "bad"):
		time.AfterFunc(20*time.Millisecond, func() { f.fail(b) })
	case strings.HasPrefix(name, "slow"):
		time.AfterFunc(50*time.Millisecond, func() { f.start(b) })
	case strings.HasPrefix(name, "never"):
	default:
		f.startLocked(b)
	}
	return &openshellv1.SandboxResponse{Sandbox: proto.CloneOf(b.s)}, nil
}

func (f *fake) fail(b *box) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b.s.Status.Phase = openshellv1.SandboxPhase_SANDBOX_PHASE_ERROR
	b.s.Status.Conditions = []*openshellv1.SandboxCondition{{Type: "Ready", Status: "False", Reason: "ImageNotFound", Message: "no such image"}}
	f.touch()
}

func (f *fake) start(b *box) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.startLocked(b)
}

func (f *fake) startLocked(b *box) {
	f.count++
	argv := b.s.Spec.GetCommand()
	if len(argv) == 0 {
		argv = []string{"sh"}
	}
	b.s.Status.Phase, b.s.Status.ExitCode = openshellv1.SandboxPhase_SANDBOX_PHASE_READY, nil
	b.s.Status.MainProcessInstanceId = fmt.Sprintf("main-%d", f.count)
	m := startMain(argv, b.s.Spec.GetEnvironment(), b.s.Spec.GetTty())
	b.main = m
	f.touch()
	go func() { // ends with the process, which Cleanup kills
		<-m.done
		f.mu.Lock()
		defer f.mu.Unlock()
		if b.main != m || b.s.Status.Phase != openshellv1.SandboxPhase_SANDBOX_PHASE_READY {
			return
		}
		code := int32(m.code)
		b.s.Status.ExitCode, b.s.Status.Phase = &code, openshellv1.SandboxPhase_SANDBOX_PHASE_COMPLETED
		if code != 0 {
			b.s.Status.Phase = openshellv1.SandboxPhase_SANDBOX_PHASE_ERROR
		}
		f.touch()
	}()
}

func (f *fake) GetSandbox(_ context.Context, req *openshellv1.GetSandboxRequest) (*openshellv1.SandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.find(req.GetWorkspaceScope(), req.GetName())
	if err != nil {
		return nil, err
	}
	return &openshellv1.SandboxResponse{Sandbox: proto.CloneOf(b.s)}, nil
}

func (f *fake) ListSandboxes(_ context.Context, req *openshellv1.ListSandboxesRequest) (*openshellv1.ListSandboxesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for name, b := range f.boxes {
		match := true
		for part := range strings.SplitSeq(req.GetLabelSelector(), ",") {
			if k, v, ok := strings.Cut(part, "="); ok && b.s.Metadata.Labels[k] != v {
				match = false
			}
		}
		if match && name > req.GetPageToken() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	resp := &openshellv1.ListSandboxesResponse{}
	for i, name := range names {
		if i == int(req.GetPageSize()) {
			resp.NextPageToken = names[i-1]
			break
		}
		resp.Sandboxes = append(resp.Sandboxes, proto.CloneOf(f.boxes[name].s))
	}
	return resp, nil
}

func (f *fake) DeleteSandbox(_ context.Context, req *openshellv1.DeleteSandboxRequest) (*openshellv1.DeleteSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.find(req.GetWorkspaceScope(), req.GetName())
	if err != nil {
		if req.GetAllowMissing() && connect.CodeOf(err) == connect.CodeNotFound {
			return &openshellv1.DeleteSandboxResponse{Outcome: openshellv1.DeletionOutcome_DELETION_OUTCOME_ALREADY_ABSENT}, nil
		}
		return nil, err
	}
	if strings.HasPrefix(req.GetName(), "stuck") {
		return nil, wireError(connect.CodePermissionDenied, "you may not delete this")
	}
	b.s.Status.Phase = openshellv1.SandboxPhase_SANDBOX_PHASE_DELETING
	f.touch()
	time.AfterFunc(20*time.Millisecond, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		b.main.kill()
		delete(f.boxes, req.GetName())
		f.touch()
	})
	return &openshellv1.DeleteSandboxResponse{Outcome: openshellv1.DeletionOutcome_DELETION_OUTCOME_ACCEPTED, SandboxId: b.s.Metadata.Id}, nil
}

func (f *fake) StopSandbox(_ context.Context, req *openshellv1.StopSandboxRequest) (*openshellv1.SandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.find(req.GetWorkspaceScope(), req.GetName())
	if err != nil {
		return nil, err
	}
	b.s.Status.Phase = openshellv1.SandboxPhase_SANDBOX_PHASE_STOPPING
	b.main.kill()
	time.AfterFunc(20*time.Millisecond, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		b.s.Status.Phase = openshellv1.SandboxPhase_SANDBOX_PHASE_STOPPED
		f.touch()
	})
	return &openshellv1.SandboxResponse{Sandbox: proto.CloneOf(b.s)}, nil
}

func (f *fake) StartSandbox(_ context.Context, req *openshellv1.StartSandboxRequest) (*openshellv1.SandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.find(req.GetWorkspaceScope(), req.GetName())
	if err != nil {
		return nil, err
	}
	b.s.Status.Phase = openshellv1.SandboxPhase_SANDBOX_PHASE_STARTING
	time.AfterFunc(20*time.Millisecond, func() { f.start(b) })
	return &openshellv1.SandboxResponse{Sandbox: proto.CloneOf(b.s)}, nil
}

func (f *fake) WatchSandbox(ctx context.Context, req *openshellv1.WatchSandboxRequest, stream *connect.ServerStream[openshellv1.SandboxStreamEvent]) error {
	if req.GetFollowLogs() {
		for i, l := range fakeLogs() {
			if err := stream.Send(&openshellv1.SandboxStreamEvent{Payload: &openshellv1.SandboxStreamEvent_Log{Log: l}, Cursor: fmt.Sprintf("c%03d", i)}); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return nil
	}
	event := &openshellv1.PlatformEvent{Reason: "PullingLayer", Message: "layer 1 of 2", Metadata: map[string]string{"openshell.progress.active_step": "pulling_image", "openshell.progress.active_detail": "1 of 2"}}
	if err := stream.Send(&openshellv1.SandboxStreamEvent{Payload: &openshellv1.SandboxStreamEvent_Event{Event: event}, Cursor: "c1"}); err != nil {
		return err
	}
	for {
		f.mu.Lock()
		b, err := f.find(req.GetWorkspaceScope(), req.GetSandbox())
		if err != nil {
			f.mu.Unlock()
			return err
		}
		s, changed := proto.CloneOf(b.s), f.changed
		f.mu.Unlock()
		if err := stream.Send(&openshellv1.SandboxStreamEvent{Payload: &openshellv1.SandboxStreamEvent_Sandbox{Sandbox: s}}); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func fakeLogs() []*openshellv1.SandboxLogLine {
	return []*openshellv1.SandboxLogLine{
		{EventTime: timestamppb.New(time.Unix(1700000000, 5e6)), Level: "INFO", Target: "gateway::sandbox", Message: "created", Source: "gateway", Fields: map[string]string{"name": "box", "b": "two words"}},
		{EventTime: timestamppb.New(time.Unix(1700000001, 0)), Level: "WARN", Target: "proxy", Message: "denied\x1b[31m evil", Source: "sandbox"},
	}
}

func (f *fake) GetSandboxLogs(_ context.Context, req *openshellv1.GetSandboxLogsRequest) (*openshellv1.GetSandboxLogsResponse, error) {
	f.mu.Lock()
	_, err := f.find(req.GetWorkspaceScope(), req.GetSandbox())
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	resp := &openshellv1.GetSandboxLogsResponse{BufferTotal: 2}
	for _, l := range fakeLogs() {
		if len(req.GetSources()) == 0 || slices.Contains(req.GetSources(), l.GetSource()) {
			resp.Logs = append(resp.Logs, l)
		}
	}
	return resp, nil
}

func (f *fake) GetSandboxConfig(_ context.Context, req *sandboxv1.GetSandboxConfigRequest) (*sandboxv1.GetSandboxConfigResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.find(req.GetWorkspaceScope(), req.GetName())
	if err != nil {
		return nil, err
	}
	last := b.policies[len(b.policies)-1]
	return &sandboxv1.GetSandboxConfigResponse{Policy: last.GetPolicy(), Version: last.GetVersion(), PolicyHash: last.GetPolicyHash(), ConfigRevision: 42, PolicySource: sandboxv1.PolicySource_POLICY_SOURCE_SANDBOX}, nil
}

func (f *fake) UpdateConfig(_ context.Context, req *openshellv1.UpdateConfigRequest) (*openshellv1.UpdateConfigResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.find(req.GetWorkspaceScope(), req.GetSandbox())
	if err != nil {
		return nil, err
	}
	last := b.policies[len(b.policies)-1]
	if proto.Equal(last.GetPolicy(), req.GetPolicy()) {
		return &openshellv1.UpdateConfigResponse{Version: last.GetVersion(), PolicyHash: last.GetPolicyHash()}, nil
	}
	next := &openshellv1.SandboxPolicyRevision{Version: last.GetVersion() + 1, PolicyHash: "bbbbbbbbbbbbbbbbbbbb", Status: openshellv1.PolicyStatus_POLICY_STATUS_PENDING, CreatedTime: last.GetCreatedTime(), Policy: req.GetPolicy()}
	b.policies = append(b.policies, next)
	if !strings.HasPrefix(req.GetSandbox(), "deaf") {
		time.AfterFunc(20*time.Millisecond, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			next.Status = openshellv1.PolicyStatus_POLICY_STATUS_LOADED
		})
	}
	return &openshellv1.UpdateConfigResponse{Version: next.GetVersion(), PolicyHash: next.GetPolicyHash()}, nil
}

func (f *fake) GetSandboxPolicyStatus(_ context.Context, req *openshellv1.GetSandboxPolicyStatusRequest) (*openshellv1.GetSandboxPolicyStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.find(req.GetWorkspaceScope(), req.GetSandbox())
	if err != nil {
		return nil, err
	}
	v := int(req.GetVersion())
	if v == 0 {
		v = len(b.policies)
	}
	if v > len(b.policies) {
		return nil, wireError(connect.CodeNotFound, "no such revision")
	}
	return &openshellv1.GetSandboxPolicyStatusResponse{Revision: proto.CloneOf(b.policies[v-1]), ActiveVersion: uint32(len(b.policies))}, nil
}

func (f *fake) ListSandboxPolicies(_ context.Context, req *openshellv1.ListSandboxPoliciesRequest) (*openshellv1.ListSandboxPoliciesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.find(req.GetWorkspaceScope(), req.GetSandbox())
	if err != nil {
		return nil, err
	}
	resp := &openshellv1.ListSandboxPoliciesResponse{}
	for _, p := range b.policies {
		resp.Revisions = append(resp.Revisions, proto.CloneOf(p))
	}
	return resp, nil
}

func (f *fake) ready(scope *datamodelv1.WorkspaceSelector, name string) (*box, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.find(scope, name)
	if err != nil {
		return nil, err
	}
	if b.s.Status.Phase != openshellv1.SandboxPhase_SANDBOX_PHASE_READY {
		return nil, wireError(connect.CodeFailedPrecondition, fmt.Sprintf("sandbox %q is not ready", name))
	}
	return b, nil
}

func hostCommand(argv []string, env map[string]string) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nowhere"}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd
}

func codeOf(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode()
	case errors.As(err, &exit):
		return 137
	}
	return 127
}

type execSender func(*openshellv1.ExecSandboxEvent) error

func (s execSender) stream(stderr bool) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		e := &openshellv1.ExecSandboxEvent{Payload: &openshellv1.ExecSandboxEvent_Stdout{Stdout: &openshellv1.ExecSandboxStdout{Data: bytes.Clone(p)}}}
		if stderr {
			e.Payload = &openshellv1.ExecSandboxEvent_Stderr{Stderr: &openshellv1.ExecSandboxStderr{Data: bytes.Clone(p)}}
		}
		return len(p), s(e)
	})
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

func (f *fake) ExecSandbox(ctx context.Context, req *openshellv1.ExecSandboxRequest, stream *connect.ServerStream[openshellv1.ExecSandboxEvent]) error {
	if _, err := f.ready(req.GetWorkspaceScope(), req.GetSandbox()); err != nil {
		return err
	}
	return f.run(ctx, req, bytes.NewReader(req.GetStdin()), stream.Send)
}

func (f *fake) run(ctx context.Context, req *openshellv1.ExecSandboxRequest, stdin io.Reader, send func(*openshellv1.ExecSandboxEvent) error) error {
	if req.GetCommand()[0] == "vanish" { // the stream ends without a result
		return nil
	}
	if t := req.GetExecutionTimeout(); t != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.AsDuration())
		defer cancel()
	}
	var mu sync.Mutex
	locked := execSender(func(e *openshellv1.ExecSandboxEvent) error {
		mu.Lock()
		defer mu.Unlock()
		return send(e)
	})
	cmd := hostCommand(req.GetCommand(), req.GetEnvironment())
	cmd.Dir = req.GetWorkdir()
	var err error
	if req.GetTty() {
		var tty *os.File
		if tty, err = pty.StartWithSize(cmd, &pty.Winsize{Rows: uint16(req.GetRows()), Cols: uint16(req.GetCols())}); err == nil {
			go func() { _, _ = io.Copy(tty, stdin) }()
			_, _ = io.Copy(locked.stream(false), tty)
			err = cmd.Wait()
			_ = tty.Close()
		}
	} else {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, locked.stream(false), locked.stream(true)
		cmd.WaitDelay = 200 * time.Millisecond
		if err = cmd.Start(); err == nil {
			stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
			err = cmd.Wait()
			stop()
		}
	}
	code := codeOf(err)
	if ctx.Err() == context.DeadlineExceeded {
		code = 124
	}
	return locked(&openshellv1.ExecSandboxEvent{Payload: &openshellv1.ExecSandboxEvent_Exit{Exit: &openshellv1.ExecSandboxExit{ExitCode: int32(code)}}})
}

func (f *fake) ExecSandboxInteractive(ctx context.Context, stream *connect.BidiStream[openshellv1.ExecSandboxInput, openshellv1.ExecSandboxEvent]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	req := first.GetStart()
	if _, err := f.ready(req.GetWorkspaceScope(), req.GetSandbox()); err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() { // ends with the request stream
		for {
			m, err := stream.Receive()
			if err != nil {
				_ = w.Close()
				return
			}
			if _, err := w.Write(m.GetStdin()); err != nil {
				return
			}
		}
	}()
	defer r.Close()
	return f.run(ctx, req, r, stream.Send)
}
