package gateway_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"openshell.dev/openshell/api/gen/datamodelv1"
	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/api/gen/sandboxv1"
	"openshell.dev/openshell/internal/compute"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/gateway"
	"openshell.dev/openshell/internal/model"
)

func modelID(s string) model.SandboxID { return model.SandboxID(s) }

// play makes the fake driver's runs connect a bare session, as a supervisor
// would, and keep it until the run ends.
func play(t *testing.T, w *world) {
	t.Helper()
	w.fake.OnRun = func(ctx context.Context, d compute.Desired) {
		go func() {
			ctx := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+d.Run.Token.Reveal(), "openshell-host-key", "SHA256:abc")
			s, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, service+"ConnectSupervisor")
			if err != nil {
				return
			}
			if s.SendMsg(&openshellv1.SupervisorMessage{Payload: &openshellv1.SupervisorMessage_Hello{Hello: &openshellv1.SupervisorHello{
				SandboxId: string(d.ID), InstanceId: d.Run.InstanceID, ConnectionEpoch: 1}}}) != nil {
				return
			}
			for {
				if s.RecvMsg(&openshellv1.GatewayMessage{}) != nil {
					return
				}
			}
		}()
	}
}

func noHold(o *gateway.Options) { o.CreateHold = -1 }

func TestALifeThroughTheAPI(t *testing.T) {
	w := newWorld(t, nil)
	play(t, w)
	b := w.create("", nil)
	if !regexp.MustCompile(`^[a-z]+-[a-z]+$`).MatchString(b.GetMetadata().GetName()) || len(b.GetMetadata().GetName()) > 19 {
		t.Errorf("generated name %q", b.GetMetadata().GetName())
	}
	name := b.GetMetadata().GetName()
	if b.GetStatus().GetPhase() != openshellv1.SandboxPhase_SANDBOX_PHASE_READY {
		t.Errorf("a fast sandbox is %v in the first reply, want READY", b.GetStatus().GetPhase())
	}
	if c := b.GetStatus().GetConditions()[0]; c.GetType() != "Ready" || c.GetStatus() != "True" || c.GetReason() != "DependenciesReady" {
		t.Errorf("condition = %v", c)
	}
	if b.GetHostKeyFingerprint() != "SHA256:abc" || b.GetStatus().ExitCode != nil || b.GetMetadata().GetWorkspace() != "default" {
		t.Errorf("sandbox = %v", b)
	}
	stopped := must[openshellv1.SandboxResponse](w, "StopSandbox", &openshellv1.StopSandboxRequest{WorkspaceScope: inDefault(), Name: name}).GetSandbox()
	if stopped.GetStatus().GetPhase() != openshellv1.SandboxPhase_SANDBOX_PHASE_STOPPED {
		t.Errorf("after stop: %v", stopped.GetStatus())
	}
	for range 2 { // idempotent
		must[openshellv1.SandboxResponse](w, "StopSandbox", &openshellv1.StopSandboxRequest{WorkspaceScope: inDefault(), Name: name})
	}
	must[openshellv1.SandboxResponse](w, "StartSandbox", &openshellv1.StartSandboxRequest{WorkspaceScope: inDefault(), Name: name})
	again := w.phase(name, openshellv1.SandboxPhase_SANDBOX_PHASE_READY)
	if again.GetStatus().GetMainProcessInstanceId() == b.GetStatus().GetMainProcessInstanceId() {
		t.Error("a start must begin a new instance")
	}
	must[openshellv1.SandboxResponse](w, "StartSandbox", &openshellv1.StartSandboxRequest{WorkspaceScope: inDefault(), Name: name})
	del := must[openshellv1.DeleteSandboxResponse](w, "DeleteSandbox", &openshellv1.DeleteSandboxRequest{WorkspaceScope: inDefault(), Name: name})
	if del.GetOutcome() != openshellv1.DeletionOutcome_DELETION_OUTCOME_COMPLETED || del.GetSandboxId() != b.GetMetadata().GetId() {
		t.Errorf("delete = %v", del)
	}
	if _, err := call[openshellv1.SandboxResponse](w, "GetSandbox", &openshellv1.GetSandboxRequest{WorkspaceScope: inDefault(), Name: name}); status.Code(err) != codes.NotFound {
		t.Errorf("get after delete: %v", err)
	}
	gone := must[openshellv1.DeleteSandboxResponse](w, "DeleteSandbox", &openshellv1.DeleteSandboxRequest{WorkspaceScope: inDefault(), Name: name, AllowMissing: true})
	if gone.GetOutcome() != openshellv1.DeletionOutcome_DELETION_OUTCOME_ALREADY_ABSENT || gone.GetSandboxId() != "" {
		t.Errorf("second delete = %v", gone)
	}
	// The name is free, the id is not used again.
	if next := w.create(name, nil); next.GetMetadata().GetId() == b.GetMetadata().GetId() {
		t.Error("an id was used again")
	}
}

// details returns the ErrorInfo reason and the field of a refusal, and checks
// that the details' own status repeats the transport's, without which an SDK
// drops them.
func details(t *testing.T, err error) (reason, field string) {
	t.Helper()
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
			if d.GetDomain() != "openshell.nvidia.com" {
				t.Errorf("domain %q", d.GetDomain())
			}
		case *errdetails.BadRequest:
			field = d.GetFieldViolations()[0].GetField()
		}
	}
	return reason, field
}

func TestWhatIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	play(t, w)
	w.create("taken", nil)
	create := func(f func(*openshellv1.CreateSandboxRequest)) *openshellv1.CreateSandboxRequest {
		r := &openshellv1.CreateSandboxRequest{WorkspaceScope: inDefault(), Name: "n", Spec: &openshellv1.SandboxSpec{}}
		f(r)
		return r
	}
	resources, err := structpb.NewStruct(map[string]any{"limits": map[string]any{"memory": "lots"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		method string
		req    proto.Message
		code   codes.Code
		reason string
		field  string
	}{
		{"no scope", "GetSandbox", &openshellv1.GetSandboxRequest{Name: "taken"}, codes.InvalidArgument, "INVALID_ARGUMENT", "workspace_scope"},
		{"empty workspace", "GetSandbox", &openshellv1.GetSandboxRequest{Name: "taken", WorkspaceScope: &datamodelv1.WorkspaceSelector{Selection: &datamodelv1.WorkspaceSelector_Workspace{}}}, codes.InvalidArgument, "INVALID_ARGUMENT", "workspace_scope"},
		{"all workspaces", "GetSandbox", &openshellv1.GetSandboxRequest{Name: "taken", WorkspaceScope: everywhere()}, codes.InvalidArgument, "INVALID_ARGUMENT", "workspace_scope"},
		{"unknown workspace", "GetSandbox", &openshellv1.GetSandboxRequest{Name: "taken", WorkspaceScope: &datamodelv1.WorkspaceSelector{Selection: &datamodelv1.WorkspaceSelector_Workspace{Workspace: "x"}}}, codes.NotFound, "", ""},
		{"missing workspace stays an error", "DeleteSandbox", &openshellv1.DeleteSandboxRequest{Name: "taken", AllowMissing: true, WorkspaceScope: &datamodelv1.WorkspaceSelector{Selection: &datamodelv1.WorkspaceSelector_Workspace{Workspace: "x"}}}, codes.NotFound, "", ""},
		{"no such sandbox", "DeleteSandbox", &openshellv1.DeleteSandboxRequest{WorkspaceScope: inDefault(), Name: "none"}, codes.NotFound, "", ""},
		{"no name", "GetSandbox", &openshellv1.GetSandboxRequest{WorkspaceScope: inDefault()}, codes.InvalidArgument, "INVALID_ARGUMENT", "name"},
		{"name taken", "CreateSandbox", create(func(r *openshellv1.CreateSandboxRequest) { r.Name = "taken" }), codes.AlreadyExists, "", ""},
		{"bad name", "CreateSandbox", create(func(r *openshellv1.CreateSandboxRequest) { r.Name = "No" }), codes.InvalidArgument, "INVALID_ARGUMENT", "name"},
		{"double hyphen", "CreateSandbox", create(func(r *openshellv1.CreateSandboxRequest) { r.Name = "a--b" }), codes.InvalidArgument, "INVALID_ARGUMENT", "name"},
		{"reserved variable", "CreateSandbox", create(func(r *openshellv1.CreateSandboxRequest) {
			r.Spec.Environment = map[string]string{"OPENSHELL_X": "1"}
		}), codes.InvalidArgument, "INVALID_ARGUMENT", "spec.environment"},
		{"empty program", "CreateSandbox", create(func(r *openshellv1.CreateSandboxRequest) { r.Spec.Command = []string{"", "x"} }), codes.InvalidArgument, "INVALID_ARGUMENT", "spec.command"},
		{"unknown provider", "CreateSandbox", create(func(r *openshellv1.CreateSandboxRequest) { r.Spec.Providers = []string{"p"} }), codes.FailedPrecondition, "", "spec.providers"},
		{"gpu", "CreateSandbox", create(func(r *openshellv1.CreateSandboxRequest) {
			r.Spec.ResourceRequirements = &openshellv1.ResourceRequirements{Gpu: &openshellv1.GpuResourceRequirements{}}
		}), codes.FailedPrecondition, "", "spec.resource_requirements.gpu"},
		{"memory", "CreateSandbox", create(func(r *openshellv1.CreateSandboxRequest) {
			r.Spec.Template = &openshellv1.SandboxTemplate{Resources: resources}
		}), codes.InvalidArgument, "INVALID_ARGUMENT", "spec.template.resources.limits.memory"},
		{"policy", "CreateSandbox", create(func(r *openshellv1.CreateSandboxRequest) {
			r.Spec.Policy = &sandboxv1.SandboxPolicy{Version: 9}
		}), codes.InvalidArgument, "INVALID_ARGUMENT", "policy"},
		{"internal annotation", "CreateSandbox", create(func(r *openshellv1.CreateSandboxRequest) {
			r.Annotations = map[string]string{"internal.openshell.ai/x": "1"}
		}), codes.InvalidArgument, "INVALID_ARGUMENT", "annotations"},
		{"negative page", "ListSandboxes", &openshellv1.ListSandboxesRequest{WorkspaceScope: inDefault(), PageSize: -1}, codes.InvalidArgument, "INVALID_ARGUMENT", "page_size"},
		{"foreign token", "ListSandboxes", &openshellv1.ListSandboxesRequest{WorkspaceScope: inDefault(), PageToken: "AAAA"}, codes.InvalidArgument, "INVALID_ARGUMENT", "page_token"},
		{"selector", "ListSandboxes", &openshellv1.ListSandboxesRequest{WorkspaceScope: inDefault(), LabelSelector: "x"}, codes.InvalidArgument, "INVALID_ARGUMENT", "label_selector"},
		{"request id", "DeleteSandbox", &openshellv1.DeleteSandboxRequest{WorkspaceScope: inDefault(), Name: "taken", RequestId: "1"}, codes.InvalidArgument, "INVALID_ARGUMENT", "request_id"},
		{"not served", "CreateProvider", &openshellv1.CreateProviderRequest{}, codes.Unimplemented, "", ""},
		{"unknown method", "Frobnicate", &openshellv1.HealthRequest{}, codes.Unimplemented, "", ""},
		{"a user on a sandbox method", "ReportMainProcessExit", &openshellv1.ReportMainProcessExitRequest{}, codes.PermissionDenied, "", ""},
		{"an operator's method", "GetProviderCredentials", &openshellv1.GetProviderCredentialsRequest{}, codes.PermissionDenied, "", ""},
	} {
		_, err := call[openshellv1.SandboxResponse](w, tt.method, tt.req)
		reason, field := details(t, err)
		if status.Code(err) != tt.code || reason != tt.reason || field != tt.field {
			t.Errorf("%s: %v (reason %q, field %q), want %v (%q, %q)", tt.name, err, reason, field, tt.code, tt.reason, tt.field)
		}
	}
	if list := must[openshellv1.ListSandboxesResponse](w, "ListSandboxes", &openshellv1.ListSandboxesRequest{WorkspaceScope: inDefault()}); len(list.GetSandboxes()) != 1 {
		t.Errorf("refusals left %d sandboxes", len(list.GetSandboxes()))
	}
}

func TestPagesOfSandboxes(t *testing.T) {
	w := newWorld(t, noHold)
	var want []string
	for n := range 7 {
		name := fmt.Sprintf("box-%d", n)
		want = append(want, name)
		must[openshellv1.SandboxResponse](w, "CreateSandbox", &openshellv1.CreateSandboxRequest{WorkspaceScope: inDefault(), Name: name,
			Labels: map[string]string{"half": fmt.Sprint(n % 2)}})
	}
	read := func(scope *datamodelv1.WorkspaceSelector, sel string) (names []string, tokens int) {
		token := ""
		for {
			page := must[openshellv1.ListSandboxesResponse](w, "ListSandboxes", &openshellv1.ListSandboxesRequest{WorkspaceScope: scope, PageSize: 3, PageToken: token, LabelSelector: sel})
			for _, b := range page.GetSandboxes() {
				names = append(names, b.GetMetadata().GetName())
			}
			if page.GetNextPageToken() == "" {
				return names, tokens
			}
			if page.GetNextPageToken() == token || len(page.GetNextPageToken()) > 120 {
				t.Fatalf("token %q after %q", page.GetNextPageToken(), token)
			}
			token = page.GetNextPageToken()
			tokens++
		}
	}
	for _, scope := range []*datamodelv1.WorkspaceSelector{inDefault(), everywhere()} {
		if got, _ := read(scope, ""); !slices.Equal(got, want) {
			t.Errorf("pages = %v, want %v", got, want)
		}
	}
	if got, _ := read(inDefault(), "half=1"); !slices.Equal(got, []string{"box-1", "box-3", "box-5"}) {
		t.Errorf("selected = %v", got)
	}
}

// TestAPageStaysBelowTheClientsLimit: a stock client refuses more than 4 MiB.
func TestAPageStaysBelowTheClientsLimit(t *testing.T) {
	w := newWorld(t, noHold)
	env := map[string]string{}
	for n := range 24 {
		env[fmt.Sprintf("V%d", n)] = strings.Repeat("x", 8000)
	}
	for n := range 30 {
		w.create(fmt.Sprintf("box-%d", n), &openshellv1.SandboxSpec{Environment: env})
	}
	total, token := 0, ""
	for {
		page := must[openshellv1.ListSandboxesResponse](w, "ListSandboxes", &openshellv1.ListSandboxesRequest{WorkspaceScope: inDefault(), PageToken: token})
		total += len(page.GetSandboxes())
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if total != 30 {
		t.Errorf("%d sandboxes, want 30", total)
	}
}

func TestACreateThatTheDriverRefusesLeavesNothing(t *testing.T) {
	w := newWorld(t, nil)
	w.fake.CreateErr = fault.New(fault.FailedPrecondition, "no user namespaces").Hint("sysctl x")
	_, err := call[openshellv1.SandboxResponse](w, "CreateSandbox", &openshellv1.CreateSandboxRequest{WorkspaceScope: inDefault(), Name: "n"})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "no user namespaces") {
		t.Errorf("create = %v", err)
	}
	if _, err := call[openshellv1.SandboxResponse](w, "GetSandbox", &openshellv1.GetSandboxRequest{WorkspaceScope: inDefault(), Name: "n"}); status.Code(err) != codes.NotFound {
		t.Errorf("get = %v, want NotFound", err)
	}
}

func report(w *world, b *openshellv1.Sandbox, code int32) error {
	id, instance := b.GetMetadata().GetId(), b.GetStatus().GetMainProcessInstanceId()
	ctx, cancel := context.WithTimeout(w.bearer(id, instance), 10*time.Second)
	defer cancel()
	return w.conn.Invoke(ctx, service+"ReportMainProcessExit", &openshellv1.ReportMainProcessExitRequest{SandboxId: id, InstanceId: instance, ExitCode: code}, &openshellv1.ReportMainProcessExitResponse{})
}

func TestTheEndOfTheMainProcess(t *testing.T) {
	w := newWorld(t, nil)
	play(t, w)
	for code, want := range map[int32]openshellv1.SandboxPhase{0: openshellv1.SandboxPhase_SANDBOX_PHASE_COMPLETED, 7: openshellv1.SandboxPhase_SANDBOX_PHASE_ERROR} {
		name := fmt.Sprintf("box-%d", code)
		b := w.create(name, &openshellv1.SandboxSpec{Command: []string{"x"}})
		if err := report(w, b, code); err != nil {
			t.Fatal(err)
		}
		got := w.get(name)
		if got.GetStatus().GetPhase() != want || got.GetStatus().ExitCode == nil || got.GetStatus().GetExitCode() != code {
			t.Errorf("after exit %d: %v", code, got.GetStatus())
		}
		// Start again: a fresh run, the exit code cleared when it is ready.
		must[openshellv1.SandboxResponse](w, "StartSandbox", &openshellv1.StartSandboxRequest{WorkspaceScope: inDefault(), Name: name})
		if again := w.phase(name, openshellv1.SandboxPhase_SANDBOX_PHASE_READY); again.GetStatus().ExitCode != nil {
			t.Errorf("the exit code was kept: %v", again.GetStatus())
		}
	}
}

func TestTheRestartPolicyStartsAgain(t *testing.T) {
	w := newWorld(t, nil)
	play(t, w)
	b := w.create("box", &openshellv1.SandboxSpec{RestartPolicy: openshellv1.SandboxRestartPolicy_SANDBOX_RESTART_POLICY_ON_FAILURE})
	if err := report(w, b, 3); err != nil {
		t.Fatal(err)
	}
	got := w.until("box", "a restart", func(b *openshellv1.Sandbox) bool {
		return b.GetStatus().GetRestartCount() == 1 && b.GetStatus().GetPhase() == openshellv1.SandboxPhase_SANDBOX_PHASE_READY
	})
	if got.GetStatus().GetMainProcessInstanceId() == b.GetStatus().GetMainProcessInstanceId() {
		t.Error("the same instance was started again")
	}
	if err := report(w, b, 3); err != nil { // a stale report is taken and ignored
		t.Fatal(err)
	}
	if err := report(w, w.get("box"), 0); err != nil {
		t.Fatal(err)
	}
	w.phase("box", openshellv1.SandboxPhase_SANDBOX_PHASE_COMPLETED)
}

func TestAKilledSupervisorIsReportedWithAReason(t *testing.T) {
	w := newWorld(t, nil)
	play(t, w)
	b := w.create("box", nil)
	w.fake.Kill(modelID(b.GetMetadata().GetId()))
	got := w.phase("box", openshellv1.SandboxPhase_SANDBOX_PHASE_ERROR)
	if c := got.GetStatus().GetConditions()[0]; c.GetReason() != "ProcessExited" || !strings.Contains(c.GetMessage(), "signal 9") {
		t.Errorf("condition = %v", c)
	}
}

func TestASandboxMayNotTouchAnother(t *testing.T) {
	w := newWorld(t, nil)
	play(t, w)
	a, b := w.create("a", nil), w.create("b", nil)
	ctx := w.bearer(a.GetMetadata().GetId(), a.GetStatus().GetMainProcessInstanceId())
	other := b.GetMetadata().GetId()
	for method, req := range map[string]proto.Message{
		"ReportMainProcessExit":      &openshellv1.ReportMainProcessExitRequest{SandboxId: other, InstanceId: "x"},
		"FinalizeMainProcessExit":    &openshellv1.FinalizeMainProcessExitRequest{SandboxId: other},
		"ReportPolicyStatus":         &openshellv1.ReportPolicyStatusRequest{SandboxId: other},
		"ReportSandboxConfiguration": &openshellv1.ReportSandboxConfigurationRequest{SandboxId: other},
		"GetSandboxConfig":           &sandboxv1.GetSandboxConfigRequest{Name: "b"},
		"UpdateConfig":               &openshellv1.UpdateConfigRequest{Sandbox: "b", Policy: &sandboxv1.SandboxPolicy{}},
		"GetSandbox":                 &openshellv1.GetSandboxRequest{WorkspaceScope: inDefault(), Name: "a"},
		"DeleteSandbox":              &openshellv1.DeleteSandboxRequest{WorkspaceScope: inDefault(), Name: "a"},
	} {
		if err := w.conn.Invoke(ctx, service+method, req, &openshellv1.HealthResponse{}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v, want PermissionDenied", method, err)
		}
	}
	bad := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer nonsense")
	if err := w.conn.Invoke(bad, service+"GetSandbox", &openshellv1.GetSandboxRequest{WorkspaceScope: inDefault(), Name: "a"}, &openshellv1.HealthResponse{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a wrong token: %v, want Unauthenticated", err)
	}
}

func TestRequestIDs(t *testing.T) {
	w := newWorld(t, nil)
	play(t, w)
	const id = "0b7f9f6c-8d0e-4d5f-9a63-1f2e3d4c5b6a"
	req := &openshellv1.CreateSandboxRequest{WorkspaceScope: inDefault(), Name: "box", RequestId: id}
	var head metadata.MD
	first, err := call[openshellv1.SandboxResponse](w, "CreateSandbox", req, grpc.Header(&head))
	if err != nil || len(head.Get("openshell-replayed")) != 0 {
		t.Fatal(err, head)
	}
	req.RequestId = strings.ToUpper(id)
	second, err := call[openshellv1.SandboxResponse](w, "CreateSandbox", req, grpc.Header(&head))
	if err != nil || second.GetSandbox().GetMetadata().GetId() != first.GetSandbox().GetMetadata().GetId() || !slices.Equal(head.Get("openshell-replayed"), []string{"true"}) {
		t.Errorf("replay = %v, %v, %v", second, err, head)
	}
	req.Labels = map[string]string{"a": "b"}
	if _, err := call[openshellv1.SandboxResponse](w, "CreateSandbox", req); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("another payload: %v", err)
	} else if reason, _ := details(t, err); reason != "REQUEST_ID_PAYLOAD_MISMATCH" {
		t.Errorf("reason %q", reason)
	}
	// A failure stays uncertain for ever.
	req = &openshellv1.CreateSandboxRequest{WorkspaceScope: inDefault(), Name: "box", RequestId: "0b7f9f6c-8d0e-4d5f-9a63-1f2e3d4c5b6b"}
	for n, want := range []string{"", "REQUEST_OUTCOME_UNCERTAIN"} {
		_, err := call[openshellv1.SandboxResponse](w, "CreateSandbox", req)
		if reason, _ := details(t, err); err == nil || reason != want {
			t.Errorf("try %d: %v (reason %q), want %q", n, err, reason, want)
		}
	}
	// A deletion replays its first outcome even if the name is used again.
	del := &openshellv1.DeleteSandboxRequest{WorkspaceScope: inDefault(), Name: "box", RequestId: "0b7f9f6c-8d0e-4d5f-9a63-1f2e3d4c5b6c"}
	one := must[openshellv1.DeleteSandboxResponse](w, "DeleteSandbox", del)
	w.create("box", nil)
	two := must[openshellv1.DeleteSandboxResponse](w, "DeleteSandbox", del)
	if !proto.Equal(one, two) {
		t.Errorf("replayed %v, want %v", two, one)
	}
	w.get("box")
	// The first create's sandbox is gone now.
	req = &openshellv1.CreateSandboxRequest{WorkspaceScope: inDefault(), Name: "box", RequestId: id}
	_, err = call[openshellv1.SandboxResponse](w, "CreateSandbox", req)
	if reason, _ := details(t, err); reason != "REQUEST_REPLAY_UNAVAILABLE" {
		t.Errorf("replay of a deleted sandbox: %v", err)
	}
}

func TestAGatewayRestartLosesNothing(t *testing.T) {
	w := newWorld(t, nil)
	play(t, w)
	before := w.create("box", &openshellv1.SandboxSpec{Command: []string{"x"}, Environment: map[string]string{"A": "b"}})
	w.stop()
	w.start()
	got := w.get("box")
	if got.GetMetadata().GetId() != before.GetMetadata().GetId() || got.GetSpec().GetEnvironment()["A"] != "b" {
		t.Errorf("after the restart: %v", got)
	}
	if c := got.GetStatus().GetConditions()[0]; got.GetStatus().GetPhase() != openshellv1.SandboxPhase_SANDBOX_PHASE_PROVISIONING || c.GetReason() != "SupervisorNotConnected" {
		t.Errorf("before the supervisor is back: %v", got.GetStatus())
	}
	// The supervisor comes back with the token it has.
	d, ok := w.fake.Desired(modelID(before.GetMetadata().GetId()))
	if !ok || d.Run.InstanceID != before.GetStatus().GetMainProcessInstanceId() {
		t.Fatalf("the run was replaced: %+v", d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.fake.OnRun(ctx, d)
	w.phase("box", openshellv1.SandboxPhase_SANDBOX_PHASE_READY)
}

func TestInfo(t *testing.T) {
	w := newWorld(t, nil)
	if h := must[openshellv1.HealthResponse](w, "Health", &openshellv1.HealthRequest{}); h.GetStatus() != openshellv1.ServiceStatus_SERVICE_STATUS_HEALTHY || h.GetVersion() == "" {
		t.Errorf("health = %v", h)
	}
	if u := must[openshellv1.GetCurrentUserResponse](w, "GetCurrentUser", &openshellv1.GetCurrentUserRequest{}); u.GetIdentityProvider() != "local_dev" {
		t.Errorf("user = %v", u)
	}
	if i := must[openshellv1.GetGatewayInfoResponse](w, "GetGatewayInfo", &openshellv1.GetGatewayInfoRequest{}); len(i.GetComputeDrivers()) != 1 || i.GetComputeDrivers()[0].GetName() != "fake" {
		t.Errorf("info = %v", i)
	}
	ws := must[openshellv1.ListWorkspacesResponse](w, "ListWorkspaces", &openshellv1.ListWorkspacesRequest{})
	if len(ws.GetWorkspaces()) != 1 || ws.GetWorkspaces()[0].GetMetadata().GetName() != "default" || ws.GetWorkspaces()[0].GetStatus().GetPhase() != datamodelv1.WorkspacePhase_WORKSPACE_PHASE_ACTIVE {
		t.Errorf("workspaces = %v", ws)
	}
	must[openshellv1.GetWorkspaceResponse](w, "GetWorkspace", &openshellv1.GetWorkspaceRequest{Name: "default"})
}
