// Package doctor finds out what this host lets a sandbox do, by trying it.
//
// It owns the list of capabilities, how each is tried (in a throw-away child
// in namespaces of its own, as a sandbox would be made), what a missing one
// means, and the one command that cures it. It changes nothing on the host
// and leaves nothing behind. Facts are collected in one place and judged in
// another, so that the judgement can be tested without such a host. The
// command line uses it.
package doctor

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// State is how a capability was found. The zero value is the worst.
type State uint8

// The states.
const (
	Missing  State = iota // not there
	Limited               // there in part
	Present               // there
	Unneeded              // not asked for here
)

var states = [...]string{"missing", "limited", "ok", "unneeded"}

// String returns the word of the state.
func (s State) String() string {
	if int(s) < len(states) {
		return states[s]
	}
	return states[Missing]
}

// MarshalText writes the word.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is one line of the report.
type Finding struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	// Detail is what was seen.
	Detail string `json:"detail"`
	// Consequence is what does not work because of it; empty if all does.
	Consequence string `json:"consequence,omitempty"`
	// Fix is the command that cures it, or an instruction where none can.
	Fix string `json:"fix,omitempty"`
	// Fatal says that no sandbox can run because of it.
	Fatal bool `json:"fatal"`
}

// Report is everything that was found.
type Report struct {
	OK       bool      `json:"ok"` // a sandbox can run
	Findings []Finding `json:"checks"`
}

// Options say how to look.
type Options struct {
	// Probe is the command line that runs Probe in the child.
	Probe []string
	// ProbeEnv is added to the child's environment.
	ProbeEnv []string
	// StateDir is where sandboxes keep their files.
	StateDir string
	// Gateway asks the gateway; nil leaves the line out.
	Gateway func(context.Context) Finding
	// Trial starts a real sandbox and returns how that went; nil leaves the
	// line out.
	Trial func(context.Context) error
}

// Run looks at the host.
func Run(ctx context.Context, o Options) Report {
	f := collect(ctx, o)
	r := Report{OK: true, Findings: judge(f)}
	if o.Gateway != nil {
		r.Findings = append(r.Findings, o.Gateway(ctx))
	}
	for _, x := range r.Findings {
		if x.Fatal {
			r.OK = false
		}
	}
	return r
}

// Write prints the report for a person.
func (r Report) Write(w io.Writer, mark func(State) string) error {
	var b strings.Builder
	b.WriteString("Checking what this machine lets a sandbox do...\n\n")
	wide := 0
	for _, f := range r.Findings {
		wide = max(wide, len(f.Name))
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s  %-*s  %s\n", mark(f.State), wide, f.Name, f.Detail)
		pad := strings.Repeat(" ", len("unneeded")+wide+4)
		if f.Consequence != "" {
			fmt.Fprintf(&b, "%s-> %s\n", pad, f.Consequence)
		}
		if f.Fix != "" {
			fmt.Fprintf(&b, "%sfix: %s\n", pad, strings.ReplaceAll(f.Fix, "\n", "\n"+pad+"     "))
		}
	}
	if r.OK {
		b.WriteString("\nAll checks passed: sandboxes run here.\n")
	} else {
		b.WriteString("\nSandboxes cannot run here.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
