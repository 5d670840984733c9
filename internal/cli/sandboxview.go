package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/api/gen/sandboxv1"
	"openshell.dev/openshell/internal/policy"
	"openshell.dev/openshell/internal/policyproto"
)

// phases are the words of the contract.
var phases = map[openshellv1.SandboxPhase]string{
	openshellv1.SandboxPhase_SANDBOX_PHASE_UNSPECIFIED:  "Unspecified",
	openshellv1.SandboxPhase_SANDBOX_PHASE_PROVISIONING: "Provisioning",
	openshellv1.SandboxPhase_SANDBOX_PHASE_READY:        "Ready",
	openshellv1.SandboxPhase_SANDBOX_PHASE_ERROR:        "Error",
	openshellv1.SandboxPhase_SANDBOX_PHASE_DELETING:     "Deleting",
	openshellv1.SandboxPhase_SANDBOX_PHASE_UNKNOWN:      "Unknown",
	openshellv1.SandboxPhase_SANDBOX_PHASE_STOPPING:     "Stopping",
	openshellv1.SandboxPhase_SANDBOX_PHASE_STOPPED:      "Stopped",
	openshellv1.SandboxPhase_SANDBOX_PHASE_STARTING:     "Starting",
	openshellv1.SandboxPhase_SANDBOX_PHASE_COMPLETED:    "Completed",
}

func phaseWord(s *openshellv1.Sandbox) string {
	if w, ok := phases[s.GetStatus().GetPhase()]; ok {
		return w
	}
	return "Unknown"
}

// sandboxView is a sandbox as programs read it. Fields are added, never
// renamed; the names are those of the contract.
type sandboxView struct {
	ID              string            `json:"id"`
	Name            string            `json:"name"`
	Workspace       string            `json:"workspace"`
	Labels          map[string]string `json:"labels"`
	Annotations     map[string]string `json:"annotations"`
	ResourceVersion uint64            `json:"resource_version"`
	CreatedAt       string            `json:"created_at"`
	Phase           string            `json:"phase"`
	PolicyVersion   uint32            `json:"current_policy_version"`
	ExitCode        *int32            `json:"exit_code"`
	Conditions      []conditionView   `json:"conditions"`
	Endpoints       []endpointView    `json:"endpoint_statuses"`
	Admission       *admissionView    `json:"configuration_admission,omitempty"`
	Provisioning    *provisioningView `json:"provisioning,omitempty"`
	Template        *templateView     `json:"created_from_workload_template,omitempty"`

	*sandboxDetail
	ServiceURLs map[string]string `json:"service_urls,omitzero"`
}

// sandboxDetail is what only `get` asks for.
type sandboxDetail struct {
	RestartPolicy string `json:"restart_policy"`
	InstanceID    string `json:"main_process_instance_id"`
	RestartCount  uint32 `json:"restart_count"`
	NextRestart   *int64 `json:"next_restart_at_ms"`
	MainStarted   *int64 `json:"main_process_started_at_ms"`
	PolicySource  string `json:"policy_source"`
	Revision      uint64 `json:"revision"`
	Policy        any    `json:"policy"`
}

type conditionView struct {
	Type       string `json:"type"`
	Status     string `json:"status"`
	Reason     string `json:"reason"`
	Message    string `json:"message"`
	Transition string `json:"last_transition_time"`
}

type endpointView struct {
	ID       string   `json:"endpoint_id"`
	Host     string   `json:"host"`
	Ports    []uint32 `json:"ports"`
	Path     string   `json:"path"`
	Last     string   `json:"last_result"`
	Reported string   `json:"last_reported_at"`
}

type admissionView struct {
	State         string `json:"state"`
	Error         string `json:"error"`
	PolicyVersion uint32 `json:"policy_version"`
	PolicyHash    string `json:"policy_hash"`
	Config        uint64 `json:"config_revision"`
	ProviderEnv   uint64 `json:"provider_env_revision"`
}

type provisioningView struct {
	Attempt             string `json:"attempt_id"`
	Phase               string `json:"phase"`
	Deadline            string `json:"deadline"`
	PreparationDeadline string `json:"preparation_deadline"`
	AdmissionStart      string `json:"admission_start_time"`
	Timeout             string `json:"timeout_time"`
	CleanupCompleted    string `json:"cleanup_completed_time"`
	CleanupError        string `json:"cleanup_error"`
	CleanupRetry        string `json:"cleanup_retry_time"`
	FirstRejection      string `json:"first_rejection_time"`
	ChangeID            string `json:"configuration_change_id"`
	Change              string `json:"configuration_change_time"`
	DriverPending       bool   `json:"driver_operation_pending"`
	DriverOperation     string `json:"driver_operation_id"`
}

type templateView struct {
	Name    string `json:"name"`
	Version string `json:"resource_version"`
}

func viewOf(s *openshellv1.Sandbox) sandboxView {
	m, st := s.GetMetadata(), s.GetStatus()
	v := sandboxView{
		ID: m.GetId(), Name: m.GetName(), Workspace: m.GetWorkspace(), Labels: orEmpty(m.GetLabels()), Annotations: orEmpty(m.GetAnnotations()),
		ResourceVersion: m.GetResourceVersion(), CreatedAt: stamp(m.GetCreatedTime()), Phase: phaseWord(s), PolicyVersion: st.GetCurrentPolicyVersion(),
		Conditions: []conditionView{}, Endpoints: []endpointView{},
	}
	if st != nil {
		v.ExitCode = st.ExitCode
	}
	for _, c := range st.GetConditions() {
		v.Conditions = append(v.Conditions, conditionView{c.GetType(), c.GetStatus(), c.GetReason(), c.GetMessage(), stamp(c.GetTransitionTime())})
	}
	for _, e := range st.GetEndpointStatuses() {
		v.Endpoints = append(v.Endpoints, endpointView{e.GetEndpointId(), e.GetHost(), e.GetPorts(), e.GetPath(),
			enumWord(e.GetLastResult().String(), "ENDPOINT_RESULT_", camel), stamp(e.GetLastReportedTime())})
	}
	if c := st.GetConfigurationAdmission(); c != nil {
		v.Admission = &admissionView{admissionWord(c.GetState()), c.GetError(), c.GetPolicyVersion(), c.GetPolicyHash(), c.GetConfigRevision(), c.GetProviderEnvRevision()}
	}
	if p := st.GetProvisioning(); p != nil {
		v.Provisioning = &provisioningView{p.GetAttemptId(), provisioningWord(s), optional(p.GetDeadline()), optional(p.GetPreparationDeadline()), optional(p.GetAdmissionStartTime()),
			optional(p.GetTimeoutTime()), optional(p.GetCleanupCompletedTime()), p.GetCleanupError(), optional(p.GetCleanupRetryTime()), optional(p.GetFirstRejectionTime()),
			p.GetConfigurationChangeId(), optional(p.GetConfigurationChangeTime()), p.GetDriverOperationPending(), p.GetDriverOperationId()}
	}
	if t := s.GetCreatedFromWorkloadTemplate(); t != nil {
		v.Template = &templateView{t.GetName(), t.GetResourceVersion()}
	}
	return v
}

func detailOf(s *openshellv1.Sandbox, cfg *sandboxv1.GetSandboxConfigResponse) (*sandboxDetail, error) {
	st := s.GetStatus()
	d := &sandboxDetail{RestartPolicy: restartWord(s.GetSpec().GetRestartPolicy()), InstanceID: st.GetMainProcessInstanceId(), RestartCount: st.GetRestartCount(),
		PolicySource: enumWord(cfg.GetPolicySource().String(), "POLICY_SOURCE_", strings.ToLower), Revision: cfg.GetConfigRevision()}
	if t := st.GetNextRestartTime(); t != nil {
		ms := millis(t)
		d.NextRestart = &ms
	}
	if t := st.GetMainProcessStartedTime(); t != nil {
		ms := millis(t)
		d.MainStarted = &ms
	}
	var err error
	d.Policy, err = policyView(cfg.GetPolicy())
	return d, err
}

// policyText is the policy as canonical YAML.
func policyText(m *sandboxv1.SandboxPolicy) ([]byte, error) {
	d, err := policyproto.Document(m)
	if err != nil || d == nil {
		return nil, err
	}
	return policy.Canonical(d), nil
}

// sandboxText prints a sandbox for a person.
func (a *app) sandboxText(w io.Writer, s *openshellv1.Sandbox, cfg *sandboxv1.GetSandboxConfigResponse) error {
	m, st := s.GetMetadata(), s.GetStatus()
	fmt.Fprintln(w, a.colour(a.stdout, "1", "Sandbox:"))
	line := func(key, format string, args ...any) {
		fmt.Fprintf(w, "  %s: %s\n", key, clean(fmt.Sprintf(format, args...)))
	}
	line("Id", "%s", m.GetId())
	line("Name", "%s", m.GetName())
	line("Phase", "%s", phaseWord(s))
	if c := st.GetConfigurationAdmission(); c.GetState() == openshellv1.ConfigurationAdmissionState_CONFIGURATION_ADMISSION_STATE_REJECTED {
		line("Configuration", "rejected: %s", c.GetError())
	}
	if st != nil && st.ExitCode != nil {
		line("Exit Code", "%d", *st.ExitCode)
	}
	line("Restart policy", "%s", restartWord(s.GetSpec().GetRestartPolicy()))
	if id := st.GetMainProcessInstanceId(); id != "" {
		line("Main process instance", "%s", id)
	}
	if st.GetRestartCount() > 0 {
		line("Restart count", "%d", st.GetRestartCount())
	}
	if t := st.GetNextRestartTime(); t != nil {
		line("Next restart", "%s", stamp(t))
	}
	line("Created", "%s", stamp(m.GetCreatedTime()))
	line("Resource version", "%d", m.GetResourceVersion())
	if t := s.GetCreatedFromWorkloadTemplate(); t != nil {
		line("Workload template", "%s (version %s)", t.GetName(), t.GetResourceVersion())
	}
	section(w, "Labels", m.GetLabels())
	section(w, "Annotations", m.GetAnnotations())
	if len(st.GetConditions()) > 0 {
		fmt.Fprintln(w, "  Conditions:")
		for _, c := range st.GetConditions() {
			fmt.Fprintf(w, "    %s\n", clean(strings.TrimSpace(fmt.Sprintf("%s=%s %s %s", c.GetType(), c.GetStatus(), c.GetReason(), c.GetMessage()))))
		}
	}
	if len(st.GetEndpointStatuses()) > 0 {
		fmt.Fprintln(w, "  Tool server connections:")
		for _, e := range viewOf(s).Endpoints {
			fmt.Fprintf(w, "    %s %s %s\n", clean(e.Host), e.Last, e.Reported)
		}
	}
	if cfg == nil {
		return nil
	}
	line("Policy source", "%s", enumWord(cfg.GetPolicySource().String(), "POLICY_SOURCE_", strings.ToLower))
	line("Revision", "%d", cfg.GetConfigRevision())
	text, err := policyText(cfg.GetPolicy())
	if err != nil || len(text) == 0 {
		return err
	}
	fmt.Fprintln(w, "\nPolicy:")
	for l := range strings.Lines(string(text)) {
		fmt.Fprintf(w, "  %s", l)
	}
	return nil
}

func section(w io.Writer, title string, m map[string]string) {
	if len(m) == 0 {
		return
	}
	fmt.Fprintf(w, "  %s:\n", title)
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(w, "    %s: %s\n", clean(k), clean(m[k]))
	}
}

func restartWord(p openshellv1.SandboxRestartPolicy) string {
	switch p {
	case openshellv1.SandboxRestartPolicy_SANDBOX_RESTART_POLICY_ON_FAILURE:
		return "on-failure"
	case openshellv1.SandboxRestartPolicy_SANDBOX_RESTART_POLICY_ALWAYS:
		return "always"
	}
	return "never"
}

func admissionWord(s openshellv1.ConfigurationAdmissionState) string {
	w := enumWord(s.String(), "CONFIGURATION_ADMISSION_STATE_", strings.ToLower)
	if w == "unspecified" {
		return "unknown"
	}
	return w
}

func provisioningWord(s *openshellv1.Sandbox) string {
	p := s.GetStatus().GetProvisioning()
	switch {
	case s.GetStatus().GetPhase() != openshellv1.SandboxPhase_SANDBOX_PHASE_PROVISIONING:
		return "ready"
	case p.GetAdmissionStartTime() == nil:
		return "preparation"
	}
	return "admission"
}

// enumWord turns PREFIX_SOME_WORD into a word of the contract.
func enumWord(name, prefix string, as func(string) string) string {
	return as(strings.TrimPrefix(name, prefix))
}

// camel turns SOME_WORD into SomeWord.
func camel(s string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(s, "_") {
		if part != "" {
			b.WriteString(part[:1] + strings.ToLower(part[1:]))
		}
	}
	return b.String()
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// optional is a time that may be absent.
func optional(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return stamp(t)
}
