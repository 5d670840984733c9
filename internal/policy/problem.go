package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"openshell.dev/openshell/internal/fault"
)

// Pos is a place in a document, counted from 1. The zero value is no place.
type Pos struct{ Line, Col int }

// Known reports whether the place is known.
func (p Pos) Known() bool { return p.Line > 0 }

// In returns the place as file:line:column, or only the file.
func (p Pos) In(source string) string {
	if !p.Known() {
		return source
	}
	return source + ":" + strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Col)
}

// Class is the kind of a violation. Each has the phrase by which clients of
// the contract know it.
type Class uint8

// The classes in the order in which the contract finds them.
const (
	Syntax    Class = iota // not one well-formed bounded document
	Unknown                // a key the contract does not know
	Decode                 // a value of the wrong type or spelling
	Unsafe                 // a static section or destination nobody may ask for
	Invalid                // members that contradict each other
	Ambiguous              // two endpoints that cannot both hold
	NotYet                 // valid, and not enforced by this version
	Advice                 // valid, and probably not meant
)

var classPhrases = [...]string{
	Syntax:    "failed to parse sandbox policy YAML: ",
	Unknown:   "",
	Decode:    "failed to decode sandbox policy fields: ",
	Unsafe:    "",
	Invalid:   "",
	Ambiguous: "",
	NotYet:    "",
	Advice:    "",
}

// Violation is one thing wrong with a document.
type Violation struct {
	Class Class
	Pos   Pos
	Path  string // dotted path of the field, empty for the whole document
	Text  string // what is wrong; no full stop
	Hint  string // what to write instead, or empty
}

// In returns the violation as one line of "source:line:column: path: text".
// Documents come from agents too: what cannot be shown is escaped.
func (v Violation) In(source string) string {
	var b strings.Builder
	if where := v.Pos.In(source); where != "" {
		b.WriteString(where)
		b.WriteString(": ")
	}
	if v.Path != "" {
		b.WriteString(v.Path)
		b.WriteString(": ")
	}
	if int(v.Class) < len(classPhrases) {
		b.WriteString(classPhrases[v.Class])
	}
	b.WriteString(v.Text)
	return printable(b.String())
}

// printable escapes control characters and what else has no glyph.
func printable(s string) string {
	bad := func(r rune) bool { return !strconv.IsPrint(r) || r == utf8.RuneError }
	if strings.IndexFunc(s, bad) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if bad(r) {
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// maxShown is how many violations the text of an Error shows.
const maxShown = 50

// Error is everything that is wrong with a document. It is a
// fault.InvalidArgument for errors.As, except that ambiguity alone is a
// fault.FailedPrecondition as in the contract.
type Error struct {
	Source     string
	Violations []Violation
}

// problems makes an Error of the violations, or nil if there are none.
func problems(source string, vs []Violation) error {
	if len(vs) == 0 {
		return nil
	}
	vs = slices.Clone(vs)
	slices.SortStableFunc(vs, func(a, b Violation) int {
		if a.Pos.Line != b.Pos.Line {
			return a.Pos.Line - b.Pos.Line
		}
		return a.Pos.Col - b.Pos.Col
	})
	return &Error{Source: source, Violations: vs}
}

// NewError makes an error of the violations of d, or nil if there are none.
func NewError(d *Document, vs []Violation) error { return problems(d.Source, vs) }

// Error returns one line for each violation.
func (e *Error) Error() string {
	var b strings.Builder
	for i, v := range e.Violations {
		if i > 0 {
			b.WriteByte('\n')
		}
		if i == maxShown {
			fmt.Fprintf(&b, "and %d more", len(e.Violations)-i)
			break
		}
		b.WriteString(v.In(e.Source))
	}
	return b.String()
}

// Unwrap returns the fault that carries kind, text and the first hint.
func (e *Error) Unwrap() error {
	kind := fault.FailedPrecondition
	hint := ""
	for _, v := range e.Violations {
		if v.Class != Ambiguous {
			kind = fault.InvalidArgument
		}
		if hint == "" {
			hint = v.Hint
		}
	}
	f := fault.New(kind, "%s", e.Error())
	if len(e.Violations) > 0 {
		f = f.On(e.Violations[0].Path)
	}
	if hint != "" {
		f = f.Hint("%s", hint)
	}
	return f
}

// maxPath is where the contract cuts a path in a message.
const maxPath = 1024

// join appends a key to a path; a key that is not a plain word is quoted.
func join(path, key string) string {
	if !plainKey(key) {
		key = strconv.Quote(key)
	}
	if path != "" {
		key = path + "." + key
	}
	if len(key) > maxPath {
		key = key[:maxPath] + "..."
	}
	return key
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func plainKey(key string) bool {
	for i := range len(key) {
		c := key[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-', c == '/', c == '<':
		default:
			return false
		}
	}
	return key != ""
}

// parentPath cuts the last member or index off a path.
func parentPath(path string) string {
	if strings.HasSuffix(path, "\"") { // a quoted key may hold dots
		for i := len(path) - 2; i >= 0; i-- {
			if path[i] == '"' && (i == 0 || path[i-1] != '\\') {
				return strings.TrimSuffix(path[:i], ".")
			}
		}
		return ""
	}
	if i := strings.LastIndexAny(path, ".["); i >= 0 {
		return path[:i]
	}
	return ""
}

// nearest returns the word of words closest to s, or "" if none is close.
func nearest(s string, words []string) string {
	best, bestAt := "", len(s)/2+1
	for _, w := range words {
		if d := distance(s, w); d < bestAt {
			best, bestAt = w, d
		}
	}
	return best
}

// distance is the number of edits (with transpositions of neighbours) between
// two short strings.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}
