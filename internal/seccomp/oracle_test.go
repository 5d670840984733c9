package seccomp

// data is what the kernel shows to a filter (struct seccomp_data).
type data struct {
	nr   uint32
	arch uint32
	args [6]uint64
}

// decide is the meaning of a table, written the slow and obvious way. The
// assembled filter must agree with it.
func decide(p Program, d data) Action {
	if d.arch != p.Arch {
		return p.Foreign
	}
	if d.nr > p.Last {
		return p.Beyond
	}
	for _, r := range p.Rules {
		if r.NR != d.nr {
			continue
		}
		all := true
		for _, c := range r.When {
			all = all && c.holds(d.args[c.Arg])
		}
		if all {
			return r.Do
		}
	}
	return p.Default
}
