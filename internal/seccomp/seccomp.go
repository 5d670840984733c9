// Package seccomp holds the system call filter of a sandboxed program.
//
// It owns the rules (data, each with a reason), the assembler that turns them
// into kernel instructions, and the call that installs them on the calling
// thread. It guarantees that a program of another architecture is ended, that a
// system call younger than the table is answered ENOSYS, and that a table with
// a doubtful row is refused instead of assembled. It does not decide anything by
// pointer contents (a filter cannot read memory), and it is not the fence of the
// network: that is the network namespace.
//
// Filters are per thread here: no TSYNC. The caller locks its goroutine to the
// thread, sets no_new_privs, installs, and forks the program from that thread.
// Used by the launcher; linked into its binary, so it imports next to nothing.
package seccomp

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Program is a filter as data. The zero value is refused by Assemble.
type Program struct {
	// Arch is the audit architecture the numbers belong to.
	Arch uint32
	// Foreign answers every call of another architecture.
	Foreign Action
	// Last is the highest number the table was reviewed for.
	Last uint32
	// Beyond answers numbers above Last. It covers x32 on amd64 too, whose
	// numbers carry bit 30.
	Beyond Action
	// Default answers calls within the table that no rule matches.
	Default Action
	// Rules are tried in order among the rules of one call; the first match
	// answers.
	Rules []Rule
}

// Rule is one row of the table: a call, conditions that must all hold (none
// means always), the answer, and the reason.
type Rule struct {
	Call string // name, as in the manual
	NR   uint32
	When []Cond
	Do   Action
	Why  string
}

// Row is a rule in words, for people.
type Row struct {
	Call   string // "socket"
	When   string // "arg0 is not one of 1, 2", or empty for always
	Answer string // "EPERM", "kill", "allow"
	Why    string
}

// Default returns the filter of every sandboxed program on this architecture.
func Default() Program {
	return Program{
		Arch:    nativeArch,
		Foreign: Kill,
		Last:    lastReviewed,
		Beyond:  Deny(unix.ENOSYS),
		Default: Allow,
		Rules:   defaultRules(),
	}
}

// Explain returns the whole table in words, the three catch-all answers first.
func (p Program) Explain() []Row {
	rows := make([]Row, 0, len(p.Rules)+3)
	rows = append(rows,
		Row{"any", "of another architecture (32-bit)", p.Foreign.String(), "its calls cannot be told apart by these numbers, and its socketcall hides arguments in memory"},
		Row{"any", "number above " + strconv.FormatUint(uint64(p.Last), 10), p.Beyond.String(), "nobody has judged it yet (x32 falls here too); programs cope with an older kernel"},
		Row{"any", "no row below matches", p.Default.String(), "ordinary programs need it, and it reaches nothing outside the sandbox"},
	)
	for _, r := range p.Rules {
		rows = append(rows, Row{r.Call, r.condition(), r.Do.String(), r.Why})
	}
	return rows
}

func (r Rule) condition() string {
	parts := make([]string, len(r.When))
	for i, c := range r.When {
		parts[i] = c.String()
	}
	return strings.Join(parts, " and ")
}

// String returns the rule in one line.
func (r Rule) String() string {
	if c := r.condition(); c != "" {
		return fmt.Sprintf("%s when %s: %s", r.Call, c, r.Do)
	}
	return r.Call + ": " + r.Do.String()
}
