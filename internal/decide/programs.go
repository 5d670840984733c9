package decide

import (
	"strings"

	"openshell.dev/openshell/internal/policy"
)

// programs is the compiled binaries of a rule. The zero value matches nobody.
type programs struct {
	few   []string            // exact paths, if there are few
	exact map[string]struct{} // exact paths, if there are many
	globs []*policy.Glob
	any   bool // "/**"
}

// fewPaths is how many paths are compared one by one rather than hashed.
const fewPaths = 8

func (p *programs) compile(list []policy.Binary, targets func(string) []string) error {
	var paths []string
	for _, b := range list {
		switch {
		case b.Path == policy.AnyProgram:
			p.any = true
		case strings.Contains(b.Path, "*"):
			g, err := policy.CompileGlob(b.Path, '/')
			if err != nil {
				return err
			}
			p.globs = append(p.globs, g)
		default:
			paths = append(paths, b.Path)
			if targets != nil {
				paths = append(paths, targets(b.Path)...)
			}
		}
	}
	if len(paths) <= fewPaths {
		p.few = paths
		return nil
	}
	p.exact = make(map[string]struct{}, len(paths))
	for _, path := range paths {
		p.exact[path] = struct{}{}
	}
	return nil
}

// match reports whether the executable or one of its ancestors is listed.
func (p *programs) match(chain []Program) bool {
	for i := range chain {
		path := chain[i].Path
		if path == "" {
			continue
		}
		if p.any && path[0] == '/' {
			return true
		}
		for _, want := range p.few {
			if want == path {
				return true
			}
		}
		if p.exact != nil {
			if _, ok := p.exact[path]; ok {
				return true
			}
		}
		for _, g := range p.globs {
			if g.Match(path, '/') {
				return true
			}
		}
	}
	return false
}

func matchLabel(pattern, label string) bool { return policy.MatchLabel(pattern, label) }
