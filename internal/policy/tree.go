package policy

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// tree is an ordered value on its way to YAML or JSON.
type tree struct {
	leaf   bool // scalar
	list   bool // items only
	keys   []string
	items  []*tree
	scalar any // string, bool, float64 or nil
}

func (t *tree) put(key string, v *tree) {
	t.keys = append(t.keys, key)
	t.items = append(t.items, v)
}

func (t *tree) item(v *tree) { t.items = append(t.items, v) }

// The following leave a default out.

func (t *tree) str(key, s string) {
	if s != "" {
		t.put(key, &tree{leaf: true, scalar: s})
	}
}

func (t *tree) num(key string, n int64) {
	if n != 0 {
		t.put(key, &tree{leaf: true, scalar: float64(n)})
	}
}

func (t *tree) flag(key string, b bool) {
	if b {
		t.put(key, &tree{leaf: true, scalar: true})
	}
}

func (t *tree) strs(key string, list []string) {
	if len(list) == 0 {
		return
	}
	v := &tree{list: true}
	for _, s := range list {
		v.item(&tree{leaf: true, scalar: s})
	}
	t.put(key, v)
}

func (t *tree) yaml() []byte {
	var b bytes.Buffer
	t.writeYAML(&b, 0)
	return b.Bytes()
}

// writeYAML writes a collection in block style, indented by depth.
func (t *tree) writeYAML(b *bytes.Buffer, depth int) {
	for i, v := range t.items {
		// The first line of an item stands behind its dash.
		if i > 0 || b.Len() == 0 || b.Bytes()[b.Len()-1] == '\n' {
			b.WriteString(strings.Repeat("  ", depth))
		}
		if t.list {
			b.WriteString("- ")
		} else {
			b.WriteString(quoteYAML(t.keys[i]))
			b.WriteByte(':')
		}
		switch {
		case v.leaf || len(v.items) == 0:
			if !t.list {
				b.WriteByte(' ')
			}
			b.WriteString(v.inline())
			b.WriteByte('\n')
		case t.list:
			v.writeYAML(b, depth+1)
		default:
			b.WriteByte('\n')
			v.writeYAML(b, depth+1)
		}
	}
}

// inline returns a scalar or an empty collection.
func (t *tree) inline() string {
	switch v := t.scalar.(type) {
	case string:
		return quoteYAML(v)
	case bool:
		return strconv.FormatBool(v)
	case float64:
		return number(v)
	}
	switch {
	case t.leaf:
		return "null"
	case t.list:
		return "[]"
	}
	return "{}"
}

// number writes a float as JSON does, whole numbers without exponent.
func number(f float64) string {
	if f == float64(int64(f)) && f > -1e15 && f < 1e15 {
		return strconv.FormatInt(int64(f), 10)
	}
	return strconv.FormatFloat(f, 'e', -1, 64)
}

// quoteYAML writes a string so that no YAML reader, old or new, takes it for
// anything else: plain if it surely is text, else in double quotes.
func quoteYAML(s string) string {
	if plainYAML(s) {
		return s
	}
	return quote(s)
}

func plainYAML(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '/':
		case i > 0 && (c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	switch strings.ToLower(s) {
	case "true", "false", "yes", "no", "on", "off", "y", "n", "null", "inf", "nan":
		return false
	}
	return true
}

// QuoteString writes s as a YAML scalar that also stands inside a flow
// collection.
func QuoteString(s string) string { return quoteYAML(s) }

// quote writes a string in the double quotes that YAML and JSON share.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r >= ' ' && r < 0x7f:
			b.WriteRune(r)
		case r < 0x10000 && !strconv.IsPrint(r), r == utf8.RuneError:
			fmt.Fprintf(&b, `\u%04x`, r)
		default: // beyond the basic plane the escapes of YAML and JSON differ
			b.WriteRune(r)
		}
		i += size
	}
	b.WriteByte('"')
	return b.String()
}

func (t *tree) json() []byte {
	var b bytes.Buffer
	t.writeJSON(&b, 0)
	b.WriteByte('\n')
	return b.Bytes()
}

func (t *tree) writeJSON(b *bytes.Buffer, depth int) {
	if s, ok := t.scalar.(string); ok {
		b.WriteString(quote(s))
		return
	}
	if t.leaf || len(t.items) == 0 {
		b.WriteString(t.inline())
		return
	}
	open, end := "{", "}"
	if t.list {
		open, end = "[", "]"
	}
	b.WriteString(open)
	for i, v := range t.items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n" + strings.Repeat("  ", depth+1))
		if !t.list {
			b.WriteString(quote(t.keys[i]) + ": ")
		}
		v.writeJSON(b, depth+1)
	}
	b.WriteString("\n" + strings.Repeat("  ", depth) + end)
}
