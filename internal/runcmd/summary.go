package runcmd

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"openshell.dev/openshell/internal/confine"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/launch"
	"openshell.dev/openshell/internal/session"
	"openshell.dev/openshell/internal/supervisor"
)

// summary is what -o json prints as one line after the command's output.
type summary struct {
	ID         string             `json:"id"`
	Command    []string           `json:"command"`
	ExitCode   int                `json:"exit_code"`
	Signal     int                `json:"signal,omitempty"`
	Reason     string             `json:"reason,omitempty"`
	TimedOut   bool               `json:"timed_out,omitempty"`
	DurationUS int64              `json:"duration_us"`
	Network    traffic            `json:"network"`
	Denials    []denial           `json:"denials"`
	Record     *supervisor.Record `json:"confirmation"`
	Phases     []supervisor.Phase `json:"phases"`
}

type traffic struct {
	Allowed  uint64 `json:"allowed"`
	Denied   uint64 `json:"denied"`
	Sent     uint64 `json:"sent_bytes"`
	Received uint64 `json:"received_bytes"`
}

func summarise(w io.Writer, spec supervisor.Spec, sb *supervisor.Sandbox, seen *sightings, exit session.Exit, code int, took time.Duration) error {
	t := sb.Traffic()
	r := *sb.Record()
	phases := r.Phases
	r.Phases = nil
	out := summary{
		ID: spec.ID, Command: spec.Main.Argv, ExitCode: code, Signal: exit.Signal, Reason: exit.Reason, TimedOut: sb.TimedOut(),
		DurationUS: took.Microseconds(), Network: traffic{t.Allowed, t.Denied, t.Sent, t.Received},
		Denials: seen.all(), Record: &r, Phases: phases,
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(out); err != nil {
		return fault.New(fault.Internal, "print the summary").Cause(err)
	}
	return nil
}

// explain prints what was done to make the sandbox, in order, and what was
// measured inside before the command was started.
func explain(w io.Writer, spec supervisor.Spec, sb *supervisor.Sandbox) {
	explainSteps(w)
	r := sb.Record()
	fmt.Fprintf(w, "\nmeasured before the command was started (Landlock ABI %d, interface %s):\n", r.Landlock, r.Interface)
	for _, c := range r.Checks {
		mark := "ok  "
		if !c.OK {
			mark = "FAIL"
		}
		fmt.Fprintf(w, "  %s %-34s want %-22s got %s\n", mark, c.Name, c.Want, c.Got)
	}
	for _, list := range []struct {
		title string
		rows  []string
	}{{"protected inside writable directories", r.Protected}, {"left out by best effort", r.Skipped}, {"notes", r.Notes}} {
		if len(list.rows) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s:\n", list.title)
		for _, row := range list.rows {
			fmt.Fprintf(w, "  %s\n", row)
		}
	}
	fmt.Fprintln(w, "\nhow long it took:")
	for _, p := range r.Phases {
		fmt.Fprintf(w, "  %-8s %-14s %6d us\n", p.Where, p.Name, p.Micros)
	}
	fmt.Fprintln(w)
}

func explainSteps(w io.Writer) {
	fmt.Fprintln(w, "new namespaces:")
	for _, ns := range supervisor.Namespaces {
		fmt.Fprintf(w, "  %-14s %s\n", ns.Name, ns.Why)
	}
	fmt.Fprintln(w, "\nthe launcher, pid 1 inside, in this order:")
	for _, s := range launch.Steps() {
		fmt.Fprintf(w, "  %-14s %s\n", s.Name, s.Why)
	}
	fmt.Fprintln(w, "\nthe thread that becomes the command, in this order:")
	for _, s := range confine.Steps() {
		fmt.Fprintf(w, "  %-14s %s\n", s.Name, s.Why)
	}
}

// explainOnly is --explain without a command: the plan, and nothing started.
func (f *flags) explainOnly(spec supervisor.Spec) error {
	explainSteps(stdout)
	fmt.Fprintf(stdout, "\nworkspace %s; name a command to see what is measured\n", spec.Files.Workspace)
	return nil
}
