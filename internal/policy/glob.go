package policy

import (
	"errors"
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
