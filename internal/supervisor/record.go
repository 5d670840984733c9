package supervisor

import (
	"sync"
	"time"

	"openshell.dev/openshell/internal/launch/wire"
)

// Record is the confirmation record of a start: what was measured, not what
// was intended. It is shown by --explain, in status and in events.
type Record struct {
	Namespaces []string `json:"namespaces"`
	Interface  string   `json:"interface,omitempty"` // kind of the second interface
	Landlock   int      `json:"landlock_abi"`
	Skipped    []string `json:"skipped,omitempty"` // what best effort left out
	Checks     []Check  `json:"checks"`
	Protected  []string `json:"protected,omitempty"` // read-only or hidden inside writable directories
	Notes      []string `json:"notes,omitempty"`
	Phases     []Phase  `json:"phases"`
}

// Check is one measured fact.
type Check struct {
	Name string `json:"name"`
	Want string `json:"want"`
	Got  string `json:"got"`
	OK   bool   `json:"ok"`
}

// Phase is one part of the start and how long it took.
type Phase struct {
	Name   string `json:"name"`
	Where  string `json:"where"` // outside or inside
	Micros int64  `json:"us"`
}

func (r *Record) fill(m *wire.Ready) {
	r.Landlock, r.Skipped = m.ABI, m.Skipped
	for _, c := range m.Checks {
		r.Checks = append(r.Checks, Check(c))
	}
	for _, p := range m.Phases {
		r.Phases = append(r.Phases, Phase{p.Name, "inside", int64(p.Micros)})
	}
}

// stopwatch times the phases of the outside half.
type stopwatch struct {
	mu   sync.Mutex
	last time.Time
	out  []Phase
}

func newStopwatch() *stopwatch { return &stopwatch{last: time.Now()} }

func (s *stopwatch) lap(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.out = append(s.out, Phase{name, "outside", now.Sub(s.last).Microseconds()})
	s.last = now
}
