package runcmd

import (
	"fmt"
	"io"
	"os"
	"sync"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/event"
)

// sightings keeps what was denied and says it: while it happens, or at the
// end when the command owns the terminal.
type sightings struct {
	quiet bool // collect only

	mu      sync.Mutex
	denials []denial
	more    int // beyond what is kept
	said    int
}

// denial is one refusal for a person and for the summary.
type denial struct {
	Program string `json:"program,omitempty"`
	Target  string `json:"target"`
	Rule    string `json:"rule,omitempty"`
	Reason  string `json:"reason"`
	Change  string `json:"allow_with,omitempty"`
	Count   int    `json:"count"`
}

const maxSightings = 64

// Emit implements event.Sink.
func (s *sightings) Emit(e event.Event) {
	if e.Class != event.Network || e.Action != event.Denied {
		return
	}
	e = event.Clean(e)
	d := denial{Rule: e.Rule, Reason: e.Detail, Count: max(e.Count, 1)}
	if e.Rule == "-" {
		d.Rule = ""
	}
	if e.Actor != nil {
		d.Program = e.Actor.Name
	}
	if e.Dst != nil {
		host := e.Dst.Domain
		if host == "" {
			host = e.Dst.IP
		}
		d.Target = fmt.Sprintf("%s:%d", host, e.Dst.Port)
	}
	for _, p := range e.Unmapped {
		if p.Key == "narrowest_change" {
			d.Change = p.Value
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.denials {
		k := &s.denials[i]
		if k.Program == d.Program && k.Target == d.Target && k.Reason == d.Reason {
			k.Count += d.Count
			return
		}
	}
	if len(s.denials) == maxSightings {
		s.more++
		return
	}
	s.denials = append(s.denials, d)
	if !s.quiet {
		s.said = len(s.denials)
		fmt.Fprint(os.Stderr, d.line())
	}
}

func (d denial) line() string {
	who := d.Program
	if who == "" {
		who = "a process"
	}
	s := fmt.Sprintf("%s: denied: %s -> %s: %s", brand.CLI, who, d.Target, d.Reason)
	if d.Change != "" {
		s += "; allow it with: " + d.Change
	}
	return s + "\n"
}

// flush says what was not said yet.
func (s *sightings) flush(w io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.denials[s.said:] {
		fmt.Fprint(w, d.line())
	}
	s.said = len(s.denials)
	if s.more > 0 {
		fmt.Fprintf(w, "%s: and %d more denials; --events FILE keeps all\n", brand.CLI, s.more)
	}
}

func (s *sightings) all() []denial {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]denial{}, s.denials...)
}
