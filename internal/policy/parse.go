package policy

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Parse reads one YAML or JSON document. name stands in positions, usually
// the file's name. Every violation of the document is in the one error, which
// is an *Error; a document is returned only if there is none.
func Parse(name string, data []byte) (*Document, error) {
	root, vs := load(data)
	if vs != nil {
		return nil, problems(name, vs)
	}
	r := &reader{where: map[string]Pos{}}
	d := r.document(root)
	d.Source, d.where = name, r.where
	vs = r.vs
	for _, v := range Validate(d) {
		// A value that could not be read is missing for the checks too; what
		// they say about it would only repeat the cause.
		if !covered(r.vs, v.Path) {
			vs = append(vs, v)
		}
	}
	if err := problems(name, vs); err != nil {
		return nil, err
	}
	return d, nil
}

// covered reports whether the value at path could not be read as a whole.
func covered(vs []Violation, path string) bool {
	for _, v := range vs {
		switch {
		case v.Path == path:
			return true
		case v.Class != Decode:
		case strings.HasPrefix(v.Path, path+".") || strings.HasPrefix(v.Path, path+"["):
			return true
		case strings.HasPrefix(path, v.Path+".") || strings.HasPrefix(path, v.Path+"["):
			return true
		}
	}
	return false
}

func (r *reader) document(root *yaml.Node) *Document {
	d := &Document{}
	version := false
	r.object(root, "",
		field{"version", func(n *yaml.Node, path string) {
			version = true
			if v, ok := r.number(n, path, 0, math.MaxUint32); ok && v != Version {
				r.wrong(n, path, "unsupported policy version %d; expected version %d", v, Version)
			}
		}},
		field{"filesystem_policy", func(n *yaml.Node, path string) {
			f := &Filesystem{}
			d.Filesystem = f
			r.object(n, path,
				field{"include_workdir", r.boolean(&f.IncludeWorkdir)},
				field{"read_only", r.strs(&f.ReadOnly)},
				field{"read_write", r.strs(&f.ReadWrite)})
		}},
		field{"landlock", func(n *yaml.Node, path string) {
			l := &Landlock{}
			d.Landlock = l
			r.object(n, path, field{"compatibility", enum(r, &l.Compatibility, compatibilityWords, Decode, "unknown mode %q")})
		}},
		field{"process", func(n *yaml.Node, path string) {
			p := &Process{}
			d.Process = p
			r.object(n, path,
				field{"run_as_user", r.id(&p.RunAsUser)},
				field{"run_as_group", r.id(&p.RunAsGroup)})
		}},
		field{"network_policies", func(n *yaml.Node, path string) {
			r.pairs(n, path, func(key string, k, v *yaml.Node) {
				d.Rules = append(d.Rules, r.rule(key, k, v, join(path, key)))
			})
		}},
		field{"network_middlewares", func(n *yaml.Node, path string) {
			r.pairs(n, path, func(key string, k, v *yaml.Node) {
				d.Middlewares = append(d.Middlewares, r.middleware(key, k, v, join(path, key)))
			})
		}},
		field{"ui", func(n *yaml.Node, path string) {
			u := &UI{}
			d.UI = u
			r.object(n, path,
				field{"allow_graphical_ui", r.boolean(&u.AllowGraphicalUI)},
				field{"clipboard", enum(r, &u.Clipboard, clipboardWords, Decode, "unknown clipboard mode %q")},
				field{"allow_input_injection", r.boolean(&u.AllowInputInjection)})
		}})
	if !version && resolve(root).Kind == yaml.MappingNode {
		r.wrong(root, "", "missing field `version`, the first line should be \"version: 1\"")
	}
	slices.SortFunc(d.Rules, func(a, b Rule) int { return strings.Compare(a.Key, b.Key) })
	slices.SortFunc(d.Middlewares, func(a, b Middleware) int { return strings.Compare(a.Key, b.Key) })
	return d
}

func (r *reader) rule(key string, k, n *yaml.Node, path string) Rule {
	rule := Rule{Key: key, Pos: Pos{k.Line, k.Column}}
	r.where[path] = rule.Pos
	r.object(n, path,
		field{"name", r.str(&rule.Name)},
		field{"endpoints", func(n *yaml.Node, path string) {
			r.list(n, path, func(_ int, n *yaml.Node, path string) {
				rule.Endpoints = append(rule.Endpoints, r.endpoint(n, path))
			})
		}},
		field{"binaries", func(n *yaml.Node, path string) {
			r.list(n, path, func(_ int, n *yaml.Node, path string) {
				rule.Binaries = append(rule.Binaries, r.binary(n, path))
			})
		}})
	return rule
}

// binary reads {path: P}. The scalar form, which the contract's documents
// promise and its parser lacks, is read as the same.
func (r *reader) binary(n *yaml.Node, path string) Binary {
	b := Binary{Pos: Pos{n.Line, n.Column}}
	if v := resolve(n); v.Kind == yaml.ScalarNode && isText(v) {
		b.Path = v.Value
		return b
	}
	r.object(n, path, field{"path", r.str(&b.Path)})
	return b
}

func (r *reader) middleware(key string, k, n *yaml.Node, path string) Middleware {
	m := Middleware{Key: key, Pos: Pos{k.Line, k.Column}}
	r.where[path] = m.Pos
	r.object(n, path,
		field{"name", r.str(&m.Name)},
		field{"middleware", r.str(&m.Middleware)},
		field{"order", func(n *yaml.Node, path string) {
			v, _ := r.number(n, path, math.MinInt32, math.MaxInt32)
			m.Order = int32(v)
		}},
		field{"config", func(n *yaml.Node, path string) {
			if v, ok := r.free(n, path).(map[string]any); ok {
				m.Config = v
			} else {
				r.wrong(n, path, "expected a mapping")
			}
		}},
		field{"on_error", enum(r, &m.OnError, onErrorWords, Invalid, "unknown on_error %q")},
		field{"on_uninspectable", enum(r, &m.OnUninspectable, onUninspectableWords, Invalid, "unknown on_uninspectable %q")},
		field{"endpoints", func(n *yaml.Node, path string) {
			r.object(n, path,
				field{"include", r.strs(&m.Include)},
				field{"exclude", r.strs(&m.Exclude)})
		}})
	return m
}

// free reads a value whose keys are data, as JSON would hold it.
func (r *reader) free(n *yaml.Node, path string) any {
	n = resolve(n)
	switch n.Kind {
	case yaml.MappingNode:
		out := make(map[string]any, len(n.Content)/2)
		r.pairs(n, path, func(key string, _, v *yaml.Node) { out[key] = r.free(v, join(path, key)) })
		return out
	case yaml.SequenceNode:
		out := make([]any, 0, len(n.Content))
		r.list(n, path, func(_ int, n *yaml.Node, path string) { out = append(out, r.free(n, path)) })
		return out
	case yaml.DocumentNode, yaml.ScalarNode, yaml.AliasNode:
	}
	v, err := freeScalar(n)
	if err != nil {
		r.wrong(n, path, "%v", err)
	}
	return v
}

func freeScalar(n *yaml.Node) (any, error) {
	switch tag := n.ShortTag(); {
	case isText(n):
		return n.Value, nil
	case n.Style&yaml.TaggedStyle != 0:
		return nil, fmt.Errorf("explicit tag %q is not allowed", n.Tag)
	case tag == "!!null":
		return nil, nil
	case tag == "!!bool":
		return strings.EqualFold(n.Value, "true"), nil
	case tag == "!!int", tag == "!!float":
		f, err := strconv.ParseFloat(n.Value, 64)
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) || strings.Contains(n.Value, "_") {
			return nil, fmt.Errorf("%s is not a decimal number in range", clip(n.Value))
		}
		return f, nil
	}
	return nil, fmt.Errorf("%s has no JSON form", nodeName(n))
}
