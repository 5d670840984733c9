package config

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"openshell.dev/openshell/internal/fault"
)

// applyFile reads gateway.toml into s.
func applyFile(s *Settings, name string, body []byte) error {
	var doc map[string]any
	if err := toml.Unmarshal(body, &doc); err != nil {
		var d *toml.DecodeError
		if errors.As(err, &d) {
			row, col := d.Position()
			return fault.New(fault.InvalidArgument, "%s:%d:%d: %s", name, row, col, strings.TrimPrefix(d.Error(), "toml: "))
		}
		return fault.New(fault.InvalidArgument, "%s: %v", name, err)
	}
	f := file{name: name, body: body}
	root, err := f.root(doc)
	if err != nil {
		return err
	}
	return f.walk(s, "", root)
}

type file struct {
	name string
	body []byte
}

// root checks the schema version and returns the [openshell] table.
func (f file) root(doc map[string]any) (map[string]any, error) {
	for _, k := range slices.Sorted(maps.Keys(doc)) {
		if k != "openshell" {
			return nil, f.unknown(k, k, []string{"openshell"})
		}
	}
	table, ok := doc["openshell"].(map[string]any)
	if !ok {
		return nil, fault.New(fault.InvalidArgument, "%s: [openshell] version is missing, it must be %d", f.name, Schema).
			Hint("[openshell]\nversion = %d", Schema)
	}
	version, ok := table["version"].(int64)
	if !ok || version != Schema {
		where := f.name
		if p := f.position("openshell.version"); p != "" {
			where = p
		}
		return nil, fault.New(fault.InvalidArgument, "%s: unsupported gateway config version %v, it must be %d", where, table["version"], Schema)
	}
	table = maps.Clone(table)
	delete(table, "version")
	return table, nil
}

func (f file) walk(s *Settings, prefix string, table map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(table)) {
		path := join(prefix, name)
		value := table[name]
		where := f.position("openshell." + path)
		if where == "" {
			where = f.name + ": openshell." + path
		} else {
			where += ": openshell." + path
		}
		if path == "gateway.database_url" {
			return fault.New(fault.InvalidArgument, "%s: the database is never named in the file", where).Hint("OPENSHELL_DB_URL=sqlite:/path")
		}
		if i := slices.IndexFunc(keys, func(k key) bool { return k.path == path }); i >= 0 {
			if err := keys[i].fromFile(s, value); err != nil {
				return at(where, err)
			}
			continue
		}
		if driver, below := strings.CutPrefix(path, "drivers."); below && !strings.Contains(driver, ".") && driver != s.driverTable() {
			if _, ok := value.(map[string]any); !ok {
				return at(where, errors.New("expected a table"))
			}
			continue // an unselected driver's table is not read
		}
		if sub, ok := value.(map[string]any); ok && isPrefix(path) {
			if err := f.walk(s, path, sub); err != nil {
				return err
			}
			continue
		}
		return f.unknown("openshell."+path, name, siblings(prefix))
	}
	return nil
}

func (s *Settings) driverTable() string { return s.Driver }

func (f file) unknown(path, name string, known []string) error {
	where := f.position(path)
	if where == "" {
		where = f.name
	}
	e := fault.New(fault.InvalidArgument, "%s: unknown key %q", where, path)
	if near := nearest(name, known); near != "" {
		return e.Hint("did you mean %q?", strings.TrimSuffix(path, name)+near)
	}
	return e
}

// position returns "file:line:col" of a key or table, or the empty string.
func (f file) position(path string) string {
	p := unstable.Parser{}
	p.Reset(f.body)
	prefix := ""
	for p.NextExpression() {
		e := p.Expression()
		var parts []string
		first := unstable.Range{}
		for it := e.Key(); it.Next(); {
			if len(parts) == 0 {
				first = it.Node().Raw
			}
			parts = append(parts, string(it.Node().Data))
		}
		full := strings.Join(parts, ".")
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			prefix = full
		case unstable.KeyValue:
			full = join(prefix, full)
		default:
			continue
		}
		if full == path || strings.HasPrefix(full, path+".") {
			before := f.body[:first.Offset]
			line := bytes.Count(before, []byte("\n")) + 1
			col := len(before) - bytes.LastIndexByte(before, '\n')
			return fmt.Sprintf("%s:%d:%d", f.name, line, col)
		}
	}
	return ""
}

func join(prefix, name string) string {
	if prefix == "" {
		return name
	}
	return prefix + "." + name
}

func isPrefix(path string) bool {
	return slices.ContainsFunc(keys, func(k key) bool { return strings.HasPrefix(k.path, path+".") })
}

// siblings returns the names that may stand in a table.
func siblings(prefix string) []string {
	var out []string
	for _, k := range keys {
		rest, ok := k.path, k.path != ""
		if prefix != "" {
			rest, ok = strings.CutPrefix(k.path, prefix+".")
		}
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(rest, ".")
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// nearest returns the known word with the smallest edit distance, if it is
// near enough to be a slip.
func nearest(word string, known []string) string {
	best, at := "", max(3, len(word)/2+1)
	for _, k := range known {
		if d := distance(word, k); d < at {
			best, at = k, d
		}
	}
	return best
}

func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
