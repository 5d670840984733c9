package decide

import (
	"net/netip"

	"openshell.dev/openshell/internal/policy"
)

// Trace is a verdict with what every endpoint of the policy had to say.
type Trace struct {
	Verdict   Verdict
	Endpoints []Step // in order of rule key and index; for each holder in turn
}

// Step says why one endpoint does or does not match one holder.
type Step struct {
	Rule   RuleRef
	Holder int
	Why    Reason // Matched, NoEndpoint (other host), PortNotAllowed, ProgramUnknown, ProgramNotAllowed
	// Near reports that the host differs but has the same parent domain.
	Near bool
}

// Trace decides f by asking every endpoint in turn. It is slow and agrees with
// Connect, which the tests hold it to.
func (ix *Index) Trace(f Flow) Trace {
	t := Trace{Verdict: ix.Connect(f)}
	if ix == nil || t.Verdict.Reason == HostNotCanonical {
		return t
	}
	chains := f.Programs
	if len(chains) == 0 || ix.ignorePrograms {
		chains = [][]Program{nil}
	}
	for h, chain := range chains {
		for i := range ix.doc.Rules {
			r := &ix.doc.Rules[i]
			var programs programs
			if known := ix.rules[r.Key]; known != nil {
				programs = known.programs
			}
			for j := range r.Endpoints {
				e := &r.Endpoints[j]
				s := Step{Rule: RuleRef{Key: r.Key, Endpoint: j, Pos: e.Pos}, Holder: h}
				s.Why = ix.step(e, f, chain, &programs)
				s.Near = s.Why == NoEndpoint && sameParent(e.Host, f.Host)
				t.Endpoints = append(t.Endpoints, s)
			}
		}
	}
	return t
}

func (ix *Index) step(e *policy.Endpoint, f Flow, chain []Program, p *programs) Reason {
	if e.Host != "" {
		if host, err := policy.ParseHost(e.Host); err != nil || !host.Match(f.Host) {
			return NoEndpoint
		}
	}
	open := false
	for _, port := range e.Ports {
		open = open || port == f.Port
	}
	switch {
	case !open:
		return PortNotAllowed
	case ix.ignorePrograms:
		return Matched
	case len(chain) == 0 || chain[0].Path == "":
		return ProgramUnknown
	case !p.match(chain):
		return ProgramNotAllowed
	}
	return Matched
}

// sameParent reports whether two names differ in the first label only.
func sameParent(pattern, host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return false
	}
	return parent(pattern) == parent(host) && parent(host) != ""
}

func parent(host string) string {
	for i := range len(host) {
		if host[i] == '.' {
			for j := i + 1; j < len(host); j++ {
				if host[j] == '.' { // a parent of at least two labels
					return host[i+1:]
				}
			}
			return ""
		}
	}
	return ""
}
