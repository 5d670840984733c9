package event

import (
	"fmt"
	"strconv"
	"time"
)

// Started says that a part of the product is up.
func Started(app string) Event {
	return Event{Class: Lifecycle, Activity: LifecycleStart, Severity: Informational, Status: Success, App: app}
}

// Stopped says that a part of the product ended, with why if it is not as planned.
func Stopped(app, why string) Event {
	e := Event{Class: Lifecycle, Activity: LifecycleStop, Severity: Informational, Status: Success, App: app}
	if why != "" {
		e.Severity, e.Status, e.Detail = High, Failure, why
	}
	return e
}

// Confirmed is the confirmation record: what the process that became the agent
// measured under its final confinement. A failed one names the first control
// that was not as asked.
func Confirmed(checks []Pair, failed string) Event {
	if failed == "" {
		return Event{Class: Config, Activity: ConfigLog, Severity: Informational, Status: Success,
			State: "validated", Message: "Confinement confirmed", Unmapped: checks}
	}
	return Event{Class: Finding, Activity: FindingCreate, Severity: High, Action: Denied, Disposition: Blocked,
		Detection: &Detection{UID: "confinement-not-confirmed", Title: "Confinement is weaker than asked: " + failed,
			Remedy: "the start was stopped; run the doctor command to see what this host lacks", Evidence: checks}}
}

// SkippedPath says that a path of the policy could not be granted and why.
func SkippedPath(path, access, why string) Event {
	return Event{Class: Config, Activity: ConfigLog, Severity: Low, Status: Success, State: "skipped",
		Message:  "Landlock path skipped",
		Unmapped: []Pair{{"path", path}, {"access", access}, {"reason", why}}}
}

// Degraded says that a control is weaker than asked and the policy allows it.
func Degraded(control, why string) Event {
	return Event{Class: Finding, Activity: FindingCreate, Severity: High, Action: Observed, Disposition: Detected,
		Detection: &Detection{UID: control + "-unavailable", Title: control + " is not in force", Description: why}}
}

// KilledByLimit says that a limit ended the agent's process.
func KilledByLimit(name string, pid int, limit, value string, at time.Time) Event {
	return Event{Time: at, Class: Process, Activity: ProcTerminate, Severity: High, Status: Failure,
		Actor:    &Actor{Name: name, PID: pid},
		Message:  fmt.Sprintf("killed by its %s limit of %s", limit, value),
		Unmapped: []Pair{{"limit", limit}, {"value", value}}}
}

// Launched says that a process of the sandbox was started on request.
func Launched(name string, pid int, command string) Event {
	return Event{Class: Process, Activity: ProcLaunch, Severity: Informational, Status: Success,
		Actor: &Actor{Name: name, PID: pid, Command: command}}
}

// Exited says how a process of the sandbox ended.
func Exited(name string, pid, code int) Event {
	return Event{Class: Process, Activity: ProcTerminate, Severity: Informational, Status: Success,
		Actor: &Actor{Name: name, PID: pid}, ExitCode: &code}
}

// PolicyLoaded says that a policy revision is in force.
func PolicyLoaded(revision, hash string, cut int) Event {
	e := Event{Class: Config, Activity: ConfigLog, Severity: Informational, Status: Success, State: "loaded",
		Message: "Policy reloaded successfully", Unmapped: []Pair{{"version", revision}, {"policy_hash", hash}}}
	if cut > 0 {
		e.Unmapped = append(e.Unmapped, Pair{"connections_cut", strconv.Itoa(cut)})
	}
	return e
}

// Dropped says how many events a sink could not take.
func Dropped(n uint64) Event {
	return Event{Class: Base, Activity: Other, Severity: Medium, Message: "events were dropped because the sink was too slow",
		Unmapped: []Pair{{"dropped", strconv.FormatUint(n, 10)}}}
}
