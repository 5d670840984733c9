package model

import (
	"fmt"
	"time"
)

// RestartPolicy says what happens after the main process ended. Values are
// those of the 0.1.x wire enum; zero is stored as RestartNever.
type RestartPolicy int32

// The restart policies.
const (
	RestartNever     RestartPolicy = 1
	RestartOnFailure RestartPolicy = 2
	RestartAlways    RestartPolicy = 3
)

// Reasons of the condition Ready, as clients of the 0.1.x line know them.
const (
	ReasonReady                 = "DependenciesReady"
	ReasonNotReady              = "DependenciesNotReady"
	ReasonStarting              = "Starting"
	ReasonPreparingImage        = "PreparingImage"
	ReasonSupervisorMissing     = "SupervisorNotConnected"
	ReasonStopping              = "Stopping"
	ReasonStopped               = "Stopped"
	ReasonCompleted             = "MainProcessCompleted"
	ReasonFailed                = "MainProcessFailed"
	ReasonRestarting            = "Restarting"
	ReasonProcessExited         = "ProcessExited"
	ReasonGatewayUnreachable    = "GatewayUnreachable"
	ReasonProvisioningTimedOut  = "ProvisioningTimedOut"
	ReasonImagePrepTimedOut     = "ImagePreparationTimedOut"
	ReasonConfigurationInvalid  = "ConfigurationInvalid"
	ReasonComputeMissing        = "ComputeResourceMissing"
	ReasonStartFailed           = "StartFailed"
	ReasonDeleting              = "Deleting"
	restartStep                 = time.Second
	restartMax                  = 3 * time.Minute
	restartReset                = 10 * time.Second
	textConnected               = "Supervisor session connected"
	textWaiting                 = "Backend ready; waiting for supervisor session"
	textDisconnected            = "Supervisor session disconnected"
	textStop, textStopped       = "Sandbox stop requested", "Sandbox compute is stopped"
	textStart, textProvisioning = "Sandbox start requested", "Sandbox is being created"
)

// Lifecycle is where one sandbox stands. Its methods are the only way from
// one phase to another; they decide, the caller stores and acts. It is stored
// as JSON: fields are added, never renamed.
type Lifecycle struct {
	Phase   Phase     `json:"phase"`
	Reason  string    `json:"reason"`
	Message string    `json:"message,omitempty"`
	Since   time.Time `json:"since"` // of Phase and Reason

	InstanceID  string    `json:"instance_id,omitempty"` // the run of the main process
	MainStarted time.Time `json:"main_started,omitzero"`
	ExitCode    *int32    `json:"exit_code,omitempty"`
	ExitDetail  string    `json:"exit_detail,omitempty"`
	// Reported says that the exit of InstanceID is recorded.
	Reported bool `json:"reported,omitempty"`

	Policy       RestartPolicy `json:"restart_policy,omitempty"`
	RestartCount uint32        `json:"restart_count,omitempty"`
	NextRestart  time.Time     `json:"next_restart,omitzero"`
	QuickExits   int           `json:"quick_exits,omitempty"`

	// Deadline ends the preparation or the start; zero when neither runs.
	Deadline time.Time `json:"deadline,omitzero"`
}

// Ready returns the status of the condition Ready: True, False or Unknown.
func (l *Lifecycle) Ready() string {
	switch l.Phase {
	case PhaseReady:
		return "True"
	case PhaseUnknown, PhaseUnspecified:
		return "Unknown"
	}
	return "False"
}

// Settled reports whether nothing is under way: ready or at an end.
func (l *Lifecycle) Settled() bool {
	switch l.Phase {
	case PhaseReady, PhaseStopped, PhaseCompleted, PhaseError:
		return true
	}
	return false
}

// Startable reports whether Start would begin a run, and if not, why.
func (l *Lifecycle) Startable() error {
	switch l.Phase {
	case PhaseStopping, PhaseDeleting, PhaseUnknown, PhaseUnspecified:
		return fmt.Errorf("sandbox must be Stopped to start (current phase: %s)", l.Phase)
	}
	return nil
}

// Create begins the first run.
func (l *Lifecycle) Create(now time.Time, instance string, policy RestartPolicy, deadline time.Time) {
	if policy == 0 {
		policy = RestartNever
	}
	*l = Lifecycle{InstanceID: instance, Policy: policy, Deadline: deadline}
	l.to(now, PhaseProvisioning, ReasonStarting, textProvisioning)
}

// Progress says what the driver is doing; it changes no phase.
func (l *Lifecycle) Progress(now time.Time, instance, reason, message string) bool {
	if instance != l.InstanceID || (l.Phase != PhaseProvisioning && l.Phase != PhaseStarting) || !l.NextRestart.IsZero() {
		return false
	}
	return l.to(now, l.Phase, reason, message)
}

// Running says that the compute of this run exists without a session yet.
func (l *Lifecycle) Running(now time.Time, instance string) bool {
	return l.Progress(now, instance, ReasonSupervisorMissing, textWaiting)
}

// Connected says that the supervisor of a run has a session. It reports
// whether that run is the current one; another's session must be refused.
func (l *Lifecycle) Connected(now time.Time, instance string) bool {
	if instance != l.InstanceID {
		return false
	}
	switch l.Phase {
	case PhaseProvisioning, PhaseStarting, PhaseUnknown:
		if l.Reported {
			return false
		}
		if l.MainStarted.IsZero() {
			l.MainStarted = now
		}
		l.ExitCode, l.ExitDetail, l.Deadline, l.NextRestart = nil, "", time.Time{}, time.Time{}
		l.to(now, PhaseReady, ReasonReady, textConnected)
	case PhaseError:
		return l.Reason == ReasonFailed // its exec and forwarding go on
	case PhaseStopped, PhaseDeleting:
		return false
	}
	return true
}

// Disconnected says that the session of a run is gone while its process is
// not known to be.
func (l *Lifecycle) Disconnected(now time.Time, instance string) bool {
	if instance != l.InstanceID || l.Phase != PhaseReady {
		return false
	}
	return l.to(now, PhaseProvisioning, ReasonSupervisorMissing, textDisconnected)
}

// Exited records the end of the main process. It reports whether this was
// news: a stale run and a repeated report change nothing.
func (l *Lifecycle) Exited(now time.Time, instance string, code int32, detail string) bool {
	if instance != l.InstanceID || l.Reported {
		return false
	}
	switch l.Phase {
	case PhaseStopped, PhaseDeleting:
		return false
	}
	l.Reported, l.ExitCode, l.ExitDetail, l.Deadline = true, &code, detail, time.Time{}
	if l.Phase == PhaseStopping {
		return true // the stop decides the phase
	}
	if l.Phase == PhaseError {
		return true // already at an end for a worse reason
	}
	if l.Policy == RestartAlways || (l.Policy == RestartOnFailure && code != 0) {
		l.scheduleRestart(now, code)
		return true
	}
	if code == 0 {
		l.to(now, PhaseCompleted, ReasonCompleted, "Main process completed")
		return true
	}
	l.to(now, PhaseError, ReasonFailed, exitText(code, detail))
	return true
}

func (l *Lifecycle) scheduleRestart(now time.Time, code int32) {
	if !l.MainStarted.IsZero() && now.Sub(l.MainStarted) >= restartReset {
		l.QuickExits = 0
	}
	delay := time.Duration(0)
	if l.QuickExits > 0 {
		delay = min(restartStep<<min(l.QuickExits-1, 16), restartMax)
	}
	l.QuickExits++
	l.NextRestart = now.Add(delay)
	l.to(now, PhaseStarting, ReasonRestarting, fmt.Sprintf("Main process exited with code %d; restarting", code))
}

// Restart begins the run that NextRestart asked for.
func (l *Lifecycle) Restart(now time.Time, instance string, deadline time.Time) bool {
	if l.Phase != PhaseStarting || l.NextRestart.IsZero() {
		return false
	}
	l.RestartCount++
	l.begin(now, instance, deadline)
	return true
}

// Start begins a new run at a person's request. It reports whether there is
// one to begin; an already running sandbox is left alone.
func (l *Lifecycle) Start(now time.Time, instance string, deadline time.Time) (bool, error) {
	if err := l.Startable(); err != nil {
		return false, err
	}
	switch l.Phase {
	case PhaseReady, PhaseProvisioning:
		return false, nil
	case PhaseStarting:
		if l.NextRestart.IsZero() {
			return false, nil
		}
	}
	l.RestartCount, l.QuickExits = 0, 0
	l.begin(now, instance, deadline)
	return true, nil
}

func (l *Lifecycle) begin(now time.Time, instance string, deadline time.Time) {
	l.InstanceID, l.Reported, l.MainStarted, l.NextRestart, l.Deadline = instance, false, time.Time{}, time.Time{}, deadline
	l.to(now, PhaseStarting, ReasonStarting, textStart)
}

// Stop begins to end the compute. It reports whether there is any.
func (l *Lifecycle) Stop(now time.Time) (bool, error) {
	switch l.Phase {
	case PhaseStopped:
		return false, nil
	case PhaseDeleting:
		return false, fmt.Errorf("sandbox must be Ready to stop (current phase: %s)", l.Phase)
	}
	l.NextRestart, l.Deadline = time.Time{}, time.Time{}
	l.to(now, PhaseStopping, ReasonStopping, textStop)
	return true, nil
}

// Stopped says that the compute has ended as asked.
func (l *Lifecycle) Stopped(now time.Time) bool {
	if l.Phase != PhaseStopping {
		return false
	}
	return l.to(now, PhaseStopped, ReasonStopped, textStopped)
}

// Gone says that the compute of a run ended without being asked to. The end
// of the main process, if it was reported, stays the truth about the sandbox.
func (l *Lifecycle) Gone(now time.Time, instance, reason, message string) bool {
	if instance != l.InstanceID {
		return false
	}
	switch l.Phase {
	case PhaseStopping:
		return l.Stopped(now)
	case PhaseStopped, PhaseDeleting, PhaseError, PhaseCompleted:
		return false
	case PhaseStarting:
		if !l.NextRestart.IsZero() {
			return false // ended as expected; the next run is due
		}
	}
	l.Deadline, l.NextRestart = time.Time{}, time.Time{}
	return l.to(now, PhaseError, reason, message)
}

// Expired ends a start that took too long. It reports whether it did.
func (l *Lifecycle) Expired(now time.Time) bool {
	if l.Deadline.IsZero() || now.Before(l.Deadline) || (l.Phase != PhaseProvisioning && l.Phase != PhaseStarting) {
		return false
	}
	reason, text := ReasonProvisioningTimedOut, "the supervisor did not connect in time"
	if l.Reason == ReasonPreparingImage {
		reason, text = ReasonImagePrepTimedOut, "the image was not ready in time"
	}
	l.Deadline = time.Time{}
	return l.to(now, PhaseError, reason, text)
}

// Delete begins the end of the sandbox itself.
func (l *Lifecycle) Delete(now time.Time) bool {
	l.NextRestart, l.Deadline = time.Time{}, time.Time{}
	return l.to(now, PhaseDeleting, ReasonDeleting, "Sandbox deletion requested")
}

// Recover is the state after the gateway started again: a sandbox that was
// ready waits for its supervisor. It reports whether anything changed.
func (l *Lifecycle) Recover(now, deadline time.Time) bool {
	switch l.Phase {
	case PhaseReady:
		l.Deadline = deadline
		return l.to(now, PhaseProvisioning, ReasonSupervisorMissing, "Gateway restarted; "+textWaiting)
	case PhaseProvisioning, PhaseStarting:
		if l.NextRestart.IsZero() {
			l.Deadline = deadline
			return true
		}
	}
	return false
}

func (l *Lifecycle) to(now time.Time, phase Phase, reason, message string) bool {
	if l.Phase == phase && l.Reason == reason && l.Message == message {
		return false
	}
	if l.Phase != phase || l.Reason != reason {
		l.Since = now
	}
	l.Phase, l.Reason, l.Message = phase, reason, message
	return true
}

func exitText(code int32, detail string) string {
	text := fmt.Sprintf("Main process exited with code %d", code)
	if code > 128 && code < 193 {
		text = fmt.Sprintf("Main process was ended by signal %d", code-128)
	}
	if detail != "" {
		text += ": " + detail
	}
	return text
}

var phaseNames = [...]string{"Unspecified", "Provisioning", "Ready", "Error", "Deleting", "Unknown", "Stopping", "Stopped", "Starting", "Completed"}

// String returns the phase as people see it.
func (p Phase) String() string {
	if p >= 0 && int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return fmt.Sprintf("Phase(%d)", int32(p))
}
