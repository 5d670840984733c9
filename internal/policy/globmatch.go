package policy

import (
	"math/bits"
	"strings"
)

// Match reports whether the glob covers s; sep must be that of CompileGlob.
func (g *Glob) Match(s string, sep byte) bool {
	if g == nil {
		return false
	}
	for i := range g.alts {
		if g.alts[i].match(s, sep) {
			return true
		}
	}
	return false
}

func (a *globAlt) match(s string, sep byte) bool {
	if !strings.HasPrefix(s, a.prefix) {
		return false
	}
	s = s[len(a.prefix):]
	switch {
	case a.exact:
		return s == ""
	case a.rest:
		return true
	}
	if a.crossing {
		return a.simulate(s, sep)
	}
	return a.walk(s, sep)
}

// walk matches with two marks to fall back to: the last "*" and the last "**".
// The earliest place after an earlier one is always the best, because a "*"
// ends with its segment and a "**" may take anything.
func (a *globAlt) walk(s string, sep byte) bool {
	star, starAt, deep, deepAt := -1, 0, -1, 0
	for k, i := 0, 0; ; {
		if k == len(a.ops) {
			if i == len(s) {
				return true
			}
		} else {
			switch op := &a.ops[k]; op.kind {
			case opStar:
				star, starAt = k, i
				k++
				continue
			case opAll:
				star, deep, deepAt = -1, k, i
				k++
				continue
			case opMaybe:
				star, deep, deepAt = -1, k+1, i
				k += 2
				continue
			case opByte, opOne, opClass, opUntilSep:
				if i < len(s) && op.takes(s[i], sep) {
					k++
					i++
					continue
				}
			}
		}
		switch {
		case star >= 0 && starAt < len(s) && s[starAt] != sep:
			starAt++
			if k = star + 1; k < len(a.ops) && a.ops[k].kind == opByte {
				for starAt < len(s) && s[starAt] != a.ops[k].b && s[starAt] != sep {
					starAt++ // nothing else can follow the star
				}
			}
			i = starAt
		case deep >= 0 && deepAt < len(s):
			if a.ops[deep].kind == opUntilSep {
				next := strings.IndexByte(s[deepAt:], sep)
				if next < 0 {
					return false
				}
				deepAt += next
			}
			deepAt++
			star = -1
			k, i = deep+1, deepAt
		default:
			return false
		}
	}
}

// takes reports whether the operation stands for exactly this byte.
func (o *globOp) takes(b, sep byte) bool {
	switch o.kind {
	case opByte:
		return o.b == b
	case opOne:
		return b != sep
	case opClass:
		return o.class[b>>6]&(1<<(b&63)) != 0
	case opStar, opAll, opMaybe, opUntilSep:
	}
	return false
}

// simulate follows all possibilities at once. It is right for every glob and
// needed where a class can cross a separator.
func (a *globAlt) simulate(s string, sep byte) bool {
	// The set of operations that may be next, one bit each.
	const words = maxGlobOps/64 + 1
	var now, next [words]uint64
	n := len(a.ops)/64 + 1
	a.enter(&now, 0)
	for i := range len(s) {
		alive := false
		for w := range n {
			for set := now[w]; set != 0; set &= set - 1 {
				k := w<<6 + bits.TrailingZeros64(set)
				if k < len(a.ops) && a.step(&next, k, s[i], sep) {
					alive = true
				}
			}
		}
		if !alive {
			return false
		}
		for w := range n {
			now[w], next[w] = next[w], 0
		}
	}
	end := len(a.ops)
	return now[end>>6]&(1<<(end&63)) != 0
}

// enter adds operation k and all that may follow it without a byte.
func (a *globAlt) enter(set *[maxGlobOps/64 + 1]uint64, k int) {
	for {
		set[k>>6] |= 1 << (k & 63)
		if k == len(a.ops) {
			return
		}
		switch a.ops[k].kind {
		case opStar, opAll:
			k++
		case opMaybe:
			set[(k+1)>>6] |= 1 << ((k + 1) & 63)
			k += 2
		case opByte, opOne, opClass, opUntilSep:
			return
		}
	}
}

// step adds what may follow operation k once it has taken b, and reports
// whether it can take b at all.
func (a *globAlt) step(set *[maxGlobOps/64 + 1]uint64, k int, b, sep byte) bool {
	op := &a.ops[k]
	switch op.kind {
	case opByte, opOne, opClass:
		if !op.takes(b, sep) {
			return false
		}
		a.enter(set, k+1)
	case opStar:
		if b == sep {
			return false
		}
		a.enter(set, k)
	case opAll:
		a.enter(set, k)
	case opUntilSep:
		set[k>>6] |= 1 << (k & 63)
		if b == sep {
			a.enter(set, k+1)
		}
	case opMaybe:
		return false
	}
	return true
}

// MatchShell is the looser matcher by which an endpoint's path is chosen: "*"
// and "**" stand for anything, "?" for one byte.
func MatchShell(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == s[i] || pattern[p] == '?'):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
