package policy

import (
	"errors"
	"math/bits"
	"slices"
	"strings"
)

// Glob is a compiled pattern of the contract (sheet 1.7).
//
// With the separator "/": "*", "?" and "[...]" stay inside a segment (a
// negated class does not); "**" crosses segments only as a whole segment and
// equals "*" when glued to other text; "/x/**" does not match "/x". With the
// separator ".": the same, where a whole "**" between dots stands for
// anything. {a,b} are alternatives, a backslash quotes. The zero value
// matches nothing. Matching never allocates and is linear in the subject.
type Glob struct {
	text string
	alts []globAlt
}

type globAlt struct {
	prefix string // literal start
	ops    []globOp
	// exact: the whole alternative is the prefix; rest: prefix, then anything;
	// crossing: a class can take the separator.
	exact, rest, crossing bool
}

type globOp struct {
	kind  globKind
	b     byte
	class *[4]uint64
}

type globKind uint8

const (
	opByte     globKind = iota // this byte
	opOne                      // one byte, not the separator
	opClass                    // one byte of the class
	opStar                     // any run without separator
	opAll                      // any run
	opMaybe                    // skip the following opUntilSep, or not
	opUntilSep                 // any run and a separator
)

// Bounds of a compiled glob.
const (
	maxGlobOps  = 1024 // of one alternative
	maxGlobAlts = 64
	maxGlob     = 4096 // bytes
)

// CompileGlob compiles pattern for the separator sep, '/' or '.'.
func CompileGlob(pattern string, sep byte) (*Glob, error) {
	if len(pattern) > maxGlob {
		return nil, errors.New("the glob is longer than 4096 bytes")
	}
	if strings.IndexByte(pattern, 0) >= 0 {
		return nil, errors.New("a glob may not contain a NUL byte")
	}
	alts, err := braces(pattern, 0)
	if err != nil {
		return nil, err
	}
	g := &Glob{text: pattern}
	for _, alt := range alts {
		ops, err := globOps(alt, sep)
		if err != nil {
			return nil, err
		}
		if len(ops) > maxGlobOps {
			return nil, errors.New("the glob is too long")
		}
		g.alts = append(g.alts, newGlobAlt(ops, sep))
	}
	return g, nil
}

func newGlobAlt(ops []globOp, sep byte) globAlt {
	var prefix []byte
	for len(ops) > 0 && ops[0].kind == opByte {
		prefix = append(prefix, ops[0].b)
		ops = ops[1:]
	}
	crossing := slices.ContainsFunc(ops, func(o globOp) bool { return o.kind == opClass && o.takes(sep, sep) })
	return globAlt{prefix: string(prefix), ops: ops, exact: len(ops) == 0, rest: len(ops) == 1 && ops[0].kind == opAll, crossing: crossing}
}

// braces expands {a,b} into the list of alternatives.
func braces(pattern string, depth int) ([]string, error) {
	if depth > 4 {
		return nil, errors.New("braces are nested too deep")
	}
	open, level := -1, 0
	var parts []int
	inClass := false
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\':
			i++
		case inClass:
			inClass = c != ']'
		case c == '[':
			inClass = true
			if i+1 < len(pattern) && (pattern[i+1] == '!' || pattern[i+1] == '^') {
				i++
			}
			if i+1 < len(pattern) && pattern[i+1] == ']' {
				i++
			}
		case c == '{':
			if level++; level == 1 {
				open, parts = i, []int{i}
			}
		case c == ',' && level == 1:
			parts = append(parts, i)
		case c == '}':
			if level == 0 {
				return nil, errors.New("a closing brace has no opening one")
			}
			if level--; level > 0 {
				continue
			}
			parts = append(parts, i)
			tails, err := braces(pattern[i+1:], depth)
			if err != nil {
				return nil, err
			}
			var out []string
			for k := 0; k+1 < len(parts); k++ {
				inner, err := braces(pattern[parts[k]+1:parts[k+1]], depth+1)
				if err != nil {
					return nil, err
				}
				for _, in := range inner {
					for _, tail := range tails {
						if out = append(out, pattern[:open]+in+tail); len(out) > maxGlobAlts {
							return nil, errors.New("the braces stand for too many alternatives")
						}
					}
				}
			}
			return out, nil
		}
	}
	if level > 0 {
		return nil, errors.New("an opening brace has no closing one")
	}
	return []string{pattern}, nil
}

func globOps(p string, sep byte) ([]globOp, error) {
	if p == "**" {
		return []globOp{{kind: opAll}}, nil
	}
	var ops []globOp
	for i := 0; i < len(p); {
		switch c := p[i]; c {
		case '*':
			n := 1
			for i+n < len(p) && p[i+n] == '*' {
				n++
			}
			whole := n == 2 && (i == 0 || p[i-1] == sep && (i < 2 || p[i-2] != '\\')) && (i+n == len(p) || p[i+n] == sep)
			i += n
			switch {
			case !whole:
				ops = append(ops, globOp{kind: opStar})
			case sep == '.' || i == len(p):
				ops = append(ops, globOp{kind: opAll})
			default: // "**/" at the start or after a separator
				ops = append(ops, globOp{kind: opMaybe}, globOp{kind: opUntilSep})
				i++
			}
		case '?':
			ops = append(ops, globOp{kind: opOne})
			i++
		case '[':
			class, n, err := globClass(p[i:], sep)
			if err != nil {
				return nil, err
			}
			ops = append(ops, globOp{kind: opClass, class: class})
			i += n
		case ']':
			return nil, errors.New("a closing bracket has no opening one")
		case '\\':
			if i+1 == len(p) {
				return nil, errors.New("the glob ends with a backslash")
			}
			ops = append(ops, globOp{kind: opByte, b: p[i+1]})
			i += 2
		default:
			ops = append(ops, globOp{kind: opByte, b: c})
			i++
		}
	}
	return ops, nil
}

// globClass reads [abc], [a-z] or [!x] and returns its length.
func globClass(p string, sep byte) (*[4]uint64, int, error) {
	var set [4]uint64
	i, negated := 1, false
	if i < len(p) && (p[i] == '!' || p[i] == '^') {
		negated = true
		i++
	}
	for first := true; ; first = false {
		if i >= len(p) {
			return nil, 0, errors.New("an opening bracket has no closing one")
		}
		lo := p[i]
		if lo == ']' && !first {
			break
		}
		hi := lo
		if i+2 < len(p) && p[i+1] == '-' && p[i+2] != ']' {
			hi = p[i+2]
			i += 2
		}
		if hi < lo {
			return nil, 0, errors.New("a range in brackets runs backwards")
		}
		for b := int(lo); b <= int(hi); b++ {
			set[b>>6] |= 1 << (b & 63)
		}
		i++
	}
	if negated {
		for k := range set {
			set[k] = ^set[k]
		}
	}
	// A class stays inside its segment, but for the negated one with "/".
	if !negated || sep == '.' {
		set[sep>>6] &^= 1 << (sep & 63)
	}
	return &set, i + 1, nil
}

// String returns the pattern as written.
func (g *Glob) String() string { return g.text }

// Literal returns the one string the glob matches, if it is only one.
func (g *Glob) Literal() (string, bool) {
	if g != nil && len(g.alts) == 1 && g.alts[0].exact {
		return g.alts[0].prefix, true
	}
	return "", false
}

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
			k, i = star+1, starAt
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
