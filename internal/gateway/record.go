package gateway

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"openshell.dev/openshell/api/gen/datamodelv1"
	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/model"
	"openshell.dev/openshell/internal/store"
)

// Kinds of records.
const (
	kindSandbox   = "sandbox"
	kindPolicy    = "sandbox_policy"
	kindWorkspace = "workspace"
	kindSSH       = "ssh_session"
	kindRequest   = "request"
)

// record is one sandbox. A published record is never changed; change a copy.
type record struct {
	id          string
	name        string
	workspace   string
	labels      map[string]string
	annotations map[string]string
	created     time.Time
	version     uint64
	spec        *openshellv1.SandboxSpec // never changed in place
	s           state
}

// state is the part of a record that is ours, stored as JSON.
type state struct {
	Life        model.Lifecycle   `json:"life"`
	Spec        []byte            `json:"spec"` // SandboxSpec, protobuf
	Annotations map[string]string `json:"annotations,omitempty"`
	Template    *provenance       `json:"template,omitempty"`
	HostKey     string            `json:"host_key,omitempty"`
	// Await says that the first run's end waits for its creator.
	Await bool `json:"await,omitempty"`
	// Policy is the newest revision, Loaded the one in force.
	Policy uint32 `json:"policy,omitempty"`
	Loaded uint32 `json:"loaded,omitempty"`
	// ConfigError is why the supervisor refused the configuration.
	ConfigError string `json:"config_error,omitempty"`
	Activated   bool   `json:"activated,omitempty"`
}

type provenance struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// ephemeral reports whether the sandbox goes when its main process has ended
// and its output was delivered.
func (r *record) ephemeral() bool {
	for k, v := range r.annotations {
		if strings.HasSuffix(k, "/retention") && v == "ephemeral" {
			return true
		}
	}
	return false
}

func (r *record) clone() *record {
	c := *r
	c.s.Life.ExitCode = clonePtr(r.s.Life.ExitCode)
	c.annotations, c.labels = maps.Clone(r.annotations), maps.Clone(r.labels)
	return &c
}

func clonePtr[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

func (r *record) toStore() (store.Record, error) {
	s := r.s
	s.Annotations = r.annotations
	if s.Spec == nil {
		var err error
		if s.Spec, err = proto.Marshal(r.spec); err != nil {
			return store.Record{}, fmt.Errorf("encode the spec: %w", err)
		}
		r.s.Spec = s.Spec
	}
	payload, err := json.Marshal(s)
	if err != nil {
		return store.Record{}, fmt.Errorf("encode the state: %w", err)
	}
	return store.Record{Kind: kindSandbox, ID: r.id, Workspace: r.workspace, Name: r.name, Labels: r.labels,
		Payload: payload, Created: r.created, Version: r.version}, nil
}

func fromStore(s store.Record) (*record, error) {
	r := &record{id: s.ID, name: s.Name, workspace: s.Workspace, labels: s.Labels, created: s.Created, version: s.Version, spec: &openshellv1.SandboxSpec{}}
	if err := json.Unmarshal(s.Payload, &r.s); err != nil {
		return nil, fmt.Errorf("decode sandbox %s: %w", s.ID, err)
	}
	if err := proto.Unmarshal(r.s.Spec, r.spec); err != nil {
		return nil, fmt.Errorf("decode the spec of sandbox %s: %w", s.ID, err)
	}
	r.annotations = r.s.Annotations
	return r, nil
}

// wire is the sandbox as clients see it.
func (r *record) wire() *openshellv1.Sandbox {
	l := &r.s.Life
	out := &openshellv1.Sandbox{
		Metadata: &datamodelv1.ObjectMeta{Id: r.id, Name: r.name, CreatedTime: timestamppb.New(r.created), Labels: r.labels,
			ResourceVersion: r.version, Annotations: r.annotations, Workspace: r.workspace},
		Spec: r.spec,
		Status: &openshellv1.SandboxStatus{
			Phase:                 openshellv1.SandboxPhase(l.Phase),
			CurrentPolicyVersion:  r.s.Loaded,
			MainProcessInstanceId: l.InstanceID,
			RestartCount:          l.RestartCount,
			ExitCode:              l.ExitCode,
			Conditions: []*openshellv1.SandboxCondition{{Type: "Ready", Status: l.Ready(), Reason: l.Reason, Message: l.Message,
				TransitionTime: stamp(l.Since)}},
			NextRestartTime:        stamp(l.NextRestart),
			MainProcessStartedTime: stamp(l.MainStarted),
			ConfigurationActivated: proto.Bool(r.s.Activated),
		},
		HostKeyFingerprint: r.s.HostKey,
	}
	if r.s.ConfigError != "" {
		out.Status.Conditions = append(out.Status.Conditions, &openshellv1.SandboxCondition{Type: "ConfigurationReady", Status: "False",
			Reason: model.ReasonConfigurationInvalid, Message: r.s.ConfigError, TransitionTime: stamp(l.Since)})
		out.Status.ConfigurationAdmission = &openshellv1.SandboxConfigurationAdmission{InstanceId: l.InstanceID,
			State: openshellv1.ConfigurationAdmissionState_CONFIGURATION_ADMISSION_STATE_REJECTED, PolicyVersion: r.s.Policy, Error: r.s.ConfigError}
	} else if r.s.Activated {
		out.Status.ConfigurationAdmission = &openshellv1.SandboxConfigurationAdmission{InstanceId: l.InstanceID,
			State: openshellv1.ConfigurationAdmissionState_CONFIGURATION_ADMISSION_STATE_ACCEPTED, PolicyVersion: r.s.Loaded}
	}
	if !l.Deadline.IsZero() {
		out.Status.Provisioning = &openshellv1.SandboxProvisioning{AttemptId: l.InstanceID, Deadline: stamp(l.Deadline)}
	}
	if t := r.s.Template; t != nil {
		out.CreatedFromWorkloadTemplate = &openshellv1.SandboxWorkloadTemplateProvenance{Name: t.Name, ResourceVersion: t.Version}
	}
	if l.Phase == model.PhaseDeleting {
		out.Metadata.DeletionTime = stamp(l.Since)
	}
	return out
}

// stamp is a timestamp with presence: the zero time is absent.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
