package policy

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// reader walks the tree of a document and collects every violation.
type reader struct {
	vs    []Violation
	where map[string]Pos
}

// field is one known key of an object.
type field struct {
	name string
	read func(n *yaml.Node, path string)
}

// maxViolations stops a hostile document from costing more than it says.
const maxViolations = 1000

func (r *reader) add(class Class, n *yaml.Node, path, hint, format string, args ...any) {
	if len(r.vs) < maxViolations {
		r.vs = append(r.vs, Violation{Class: class, Pos: Pos{n.Line, n.Column}, Path: path, Text: fmt.Sprintf(format, args...), Hint: hint})
	}
}

func (r *reader) wrong(n *yaml.Node, path, format string, args ...any) {
	r.add(Decode, n, path, "", format, args...)
}

// kind checks the kind of a node with aliases resolved; nil if it is wrong.
func (r *reader) kind(n *yaml.Node, path string, kind yaml.Kind, name string) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if _, ok := r.where[path]; !ok {
		r.where[path] = Pos{n.Line, n.Column}
	}
	switch {
	case n.Style&yaml.TaggedStyle != 0:
		r.wrong(n, path, "explicit tag %q is not allowed", n.Tag)
	case n.Kind == kind:
		return n
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		r.wrong(n, path, "null is not allowed, leave the key out or write %s", name)
	default:
		r.wrong(n, path, "this is %s, expected %s", nodeName(n), name)
	}
	return nil
}

func nodeName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.DocumentNode, yaml.ScalarNode, yaml.AliasNode:
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "the number " + clip(n.Value)
	case "!!bool":
		return "the truth value " + clip(n.Value)
	}
	return "the text " + strconv.Quote(clip(n.Value))
}

// clip cuts a value for a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// pairs calls visit for each key of a mapping, refusing duplicate, merge and
// non-text keys.
func (r *reader) pairs(n *yaml.Node, path string, visit func(key string, k, v *yaml.Node)) {
	n = r.kind(n, path, yaml.MappingNode, "a mapping")
	if n == nil {
		return
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge" {
			r.add(Syntax, k, path, "", "merge keys (<<) are not allowed")
			continue
		}
		if k.Kind != yaml.ScalarNode || !isText(k) {
			r.wrong(k, path, "a key must be text, quote it")
			continue
		}
		if line, dup := seen[k.Value]; dup {
			r.add(Syntax, k, join(path, k.Value), "", "duplicate key %q, first written on line %d", clip(k.Value), line)
			continue
		}
		seen[k.Value] = k.Line
		visit(k.Value, k, v)
	}
}

// object reads a mapping with known keys only.
func (r *reader) object(n *yaml.Node, path string, fields ...field) {
	r.pairs(n, path, func(key string, k, v *yaml.Node) {
		full := join(path, key)
		for _, f := range fields {
			if f.name == key {
				r.where[full] = Pos{v.Line, v.Column}
				f.read(v, full)
				return
			}
		}
		names := make([]string, len(fields))
		for i, f := range fields {
			names[i] = f.name
		}
		text := fmt.Sprintf("unknown field '%s' in authored policy", full)
		if near := nearest(key, names); near != "" {
			text += ", did you mean " + strconv.Quote(near)
		} else if len(names) <= 8 {
			slices.Sort(names)
			text += ", known here: " + strings.Join(names, ", ")
		}
		r.add(Unknown, k, full, "", "%s", text)
	})
}

// list reads a sequence.
func (r *reader) list(n *yaml.Node, path string, item func(i int, n *yaml.Node, path string)) {
	n = r.kind(n, path, yaml.SequenceNode, "a list")
	if n == nil {
		return
	}
	for i, c := range n.Content {
		at := index(path, i)
		r.where[at] = Pos{c.Line, c.Column}
		item(i, c, at)
	}
}

// isText reports whether a scalar is a string. A plain date is one: only old
// YAML readers take it for a time.
func isText(n *yaml.Node) bool {
	tag := n.ShortTag()
	return n.Style&yaml.TaggedStyle == 0 && (tag == "!!str" || tag == "!!timestamp")
}

// text reads a string.
func (r *reader) text(n *yaml.Node, path string) (string, bool) {
	n = r.kind(n, path, yaml.ScalarNode, "text")
	switch {
	case n == nil:
	case isText(n):
		return n.Value, true
	case n.ShortTag() == "!!null":
		r.wrong(n, path, "null is not allowed, leave the key out or write text")
	default:
		r.wrong(n, path, "%s is not text, write it in quotes", n.Value)
	}
	return "", false
}

func (r *reader) str(dst *string) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) { *dst, _ = r.text(n, path) }
}

// id reads a string that may also be written as a number.
func (r *reader) id(dst *string) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		if v := resolve(n); v.Kind == yaml.ScalarNode && v.ShortTag() == "!!int" && v.Style&yaml.TaggedStyle == 0 {
			*dst = v.Value
			return
		}
		*dst, _ = r.text(n, path)
	}
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func (r *reader) strs(dst *[]string) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		r.list(n, path, func(_ int, n *yaml.Node, path string) {
			if s, ok := r.text(n, path); ok {
				*dst = append(*dst, s)
			}
		})
	}
}

func (r *reader) boolean(dst *bool) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		n = r.kind(n, path, yaml.ScalarNode, "true or false")
		switch {
		case n == nil:
		case n.ShortTag() == "!!bool":
			*dst = strings.EqualFold(n.Value, "true")
		default:
			r.wrong(n, path, "%s is not a truth value, expected true or false", nodeName(n))
		}
	}
}

// number reads a whole decimal number between low and high.
func (r *reader) number(n *yaml.Node, path string, low, high int64) (int64, bool) {
	n = r.kind(n, path, yaml.ScalarNode, "a whole number")
	if n == nil {
		return 0, false
	}
	if n.ShortTag() != "!!int" {
		r.wrong(n, path, "%s is not a whole number", nodeName(n))
		return 0, false
	}
	v, err := strconv.ParseInt(n.Value, 10, 64)
	digits := strings.TrimPrefix(n.Value, "-")
	if err != nil || len(digits) > 1 && digits[0] == '0' {
		r.wrong(n, path, "%s is not a decimal number in range", clip(n.Value))
		return 0, false
	}
	if v < low || v > high {
		r.wrong(n, path, "%d is out of range, expected %d..%d", v, low, high)
		return 0, false
	}
	return v, true
}

func (r *reader) uint32(dst *uint32) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		v, _ := r.number(n, path, 0, math.MaxUint32)
		*dst = uint32(v)
	}
}

// enum reads one of words. format says what is wrong with another value.
func enum[T ~uint8](r *reader, dst *T, words []string, class Class, format string) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		s, ok := r.text(n, path)
		if !ok {
			return
		}
		v, ok := lookup[T](words, s)
		if !ok {
			known := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "" })
			text := fmt.Sprintf(format, clip(s)) + ", expected " + strings.Join(known, ", ")
			if near := nearest(strings.ToLower(s), known); near != "" && len(known) > 1 {
				text += "; did you mean " + strconv.Quote(near)
			}
			r.add(class, resolve(n), path, "", "%s", text)
			return
		}
		*dst = v
	}
}
