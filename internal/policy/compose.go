package policy

import (
	"fmt"
	"slices"
	"strings"
)

// StaticEdits returns what of the sections that hold from the start differs
// between the policy a sandbox runs under and one it is given. Paths may be
// added (they count from the next start); everything else stands. A section
// that was absent may be added. Before the workload has started once nothing
// of this applies, and the caller does not ask.
func StaticEdits(running, next *Document) []Violation {
	c := &checker{d: next}
	if was := running.Filesystem; was != nil {
		if now := next.Filesystem; now == nil {
			c.add(Invalid, "filesystem_policy", "filesystem policy cannot be removed on a live sandbox")
		} else {
			if was.IncludeWorkdir != now.IncludeWorkdir {
				c.add(Invalid, "filesystem_policy.include_workdir", "filesystem include_workdir cannot be changed on a live sandbox")
			}
			c.removed("read_only", was.ReadOnly, now.ReadOnly)
			c.removed("read_write", was.ReadWrite, now.ReadWrite)
		}
	}
	if running.Landlock != nil && running.EffectiveLandlock() != next.EffectiveLandlock() {
		c.add(Invalid, "landlock", "landlock policy cannot be changed on a live sandbox (applied at startup)")
	}
	if was := running.Process; was != nil {
		now := next.Process
		if now == nil {
			now = &Process{}
		}
		if *was != *now {
			c.add(Invalid, "process", "process policy cannot be changed on a live sandbox (applied at startup)")
		}
	}
	return c.vs
}

func (c *checker) removed(list string, was, now []string) {
	for _, p := range was {
		if !slices.Contains(now, p) {
			c.add(Invalid, "filesystem_policy."+list, "filesystem %s path '%s' cannot be removed on a live sandbox", list, clip(p))
		}
	}
}

// Layer is what one attached provider adds to a policy.
type Layer struct {
	Provider  string // its name
	Endpoints []Endpoint
	Binaries  []Binary
}

// Compose returns the effective policy: base with one rule for each layer that
// has endpoints, under a key that base cannot use. The inputs are not changed.
// What comes out is valid if the parts are, but two of them may be ambiguous
// together (see Ambiguities).
func Compose(base *Document, layers []Layer) (*Document, error) {
	if err := NewError(base, ReservedKeys(base)); err != nil {
		return nil, err
	}
	out := *base
	out.Rules = slices.Clone(base.Rules)
	for _, l := range layers {
		if len(l.Endpoints) == 0 {
			continue
		}
		key := LayerKey(l.Provider)
		for n := 2; out.Rule(key) != nil; n++ {
			key = fmt.Sprintf("%s_%d", LayerKey(l.Provider), n)
		}
		out.Rules = append(out.Rules, Rule{Key: key, Endpoints: slices.Clone(l.Endpoints), Binaries: slices.Clone(l.Binaries)})
	}
	slices.SortFunc(out.Rules, func(a, b Rule) int { return strings.Compare(a.Key, b.Key) })
	return &out, nil
}

// LayerKey is the key of a provider's rule before collisions are numbered.
func LayerKey(provider string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, strings.ToLower(provider))
	if name = strings.Trim(name, "_"); name == "" {
		name = "unnamed"
	}
	return ReservedPrefix + name
}

// Base returns the document without the rules of providers: what its author
// wrote, and what can be given back.
func Base(d *Document) *Document {
	out := *d
	out.Rules = slices.DeleteFunc(slices.Clone(d.Rules), func(r Rule) bool { return strings.HasPrefix(r.Key, ReservedPrefix) })
	return &out
}
