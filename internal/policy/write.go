package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
)

// Canonical returns the document as canonical YAML: keys in one order,
// defaults left out, no comments, no provenance. Parsing it gives the same
// document, and writing that gives the same bytes.
func Canonical(d *Document) []byte { return d.tree().yaml() }

// JSON returns the document as indented JSON with the names and nesting of
// the YAML form.
func JSON(d *Document) []byte { return d.tree().json() }

// Hash returns the lower-case hexadecimal SHA-256 of the canonical form with
// the provenance marks. Documents that mean the same in different spelling
// have the same hash.
func Hash(d *Document) string {
	h := sha256.New()
	h.Write([]byte("policy/v1\n"))
	h.Write(Canonical(d))
	for i := range d.Rules {
		for j := range d.Rules[i].Endpoints {
			e := &d.Rules[i].Endpoints[j]
			marks := [2]byte{}
			if e.AdvisorProposed {
				marks[0] = 1
			}
			if e.ProviderCredentialed {
				marks[1] = 1
			}
			h.Write(marks[:])
			h.Write([]byte(e.TokenGrantOwner + "\n"))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (d *Document) tree() *tree {
	t := &tree{}
	t.num("version", Version)
	if f := d.Filesystem; f != nil {
		s := &tree{}
		s.flag("include_workdir", f.IncludeWorkdir)
		s.strs("read_only", f.ReadOnly)
		s.strs("read_write", f.ReadWrite)
		t.put("filesystem_policy", s)
	}
	if l := d.Landlock; l != nil {
		s := &tree{}
		s.str("compatibility", l.Compatibility.String())
		t.put("landlock", s)
	}
	if p := d.Process; p != nil && (p.RunAsUser != "" || p.RunAsGroup != "") {
		s := &tree{}
		s.str("run_as_user", p.RunAsUser)
		s.str("run_as_group", p.RunAsGroup)
		t.put("process", s)
	}
	if len(d.Rules) > 0 {
		s := &tree{}
		for i := range d.Rules {
			s.put(d.Rules[i].Key, d.Rules[i].tree())
		}
		t.put("network_policies", s)
	}
	if len(d.Middlewares) > 0 {
		s := &tree{}
		for i := range d.Middlewares {
			s.put(d.Middlewares[i].Key, d.Middlewares[i].tree())
		}
		t.put("network_middlewares", s)
	}
	if u := d.UI; u != nil {
		s := &tree{}
		s.flag("allow_graphical_ui", u.AllowGraphicalUI)
		if u.Clipboard != ClipboardNone {
			s.str("clipboard", u.Clipboard.String())
		}
		s.flag("allow_input_injection", u.AllowInputInjection)
		t.put("ui", s)
	}
	return t
}

func (r *Rule) tree() *tree {
	t := &tree{}
	if r.Name != r.Key {
		t.str("name", r.Name)
	}
	if len(r.Endpoints) > 0 {
		list := &tree{list: true}
		for i := range r.Endpoints {
			list.item(r.Endpoints[i].tree())
		}
		t.put("endpoints", list)
	}
	if len(r.Binaries) > 0 {
		list := &tree{list: true}
		for _, b := range r.Binaries {
			s := &tree{}
			s.str("path", b.Path)
			list.item(s)
		}
		t.put("binaries", list)
	}
	return t
}

func (m *Middleware) tree() *tree {
	t := &tree{}
	if m.Name != m.Key {
		t.str("name", m.Name)
	}
	t.str("middleware", m.Middleware)
	t.num("order", int64(m.Order))
	if len(m.Config) > 0 {
		t.put("config", freeTree(m.Config))
	}
	t.str("on_error", m.OnError.String())
	t.str("on_uninspectable", m.OnUninspectable.String())
	s := &tree{}
	s.strs("include", m.Include)
	s.strs("exclude", m.Exclude)
	t.put("endpoints", s)
	return t
}

func freeTree(v any) *tree {
	switch v := v.(type) {
	case map[string]any:
		t := &tree{}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			t.put(key, freeTree(v[key]))
		}
		return t
	case []any:
		t := &tree{list: true}
		for _, item := range v {
			t.item(freeTree(item))
		}
		return t
	}
	return &tree{scalar: v, leaf: true}
}
