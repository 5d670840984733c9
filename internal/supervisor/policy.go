package supervisor

import (
	"context"
	"slices"

	"openshell.dev/openshell/internal/event"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/policy"
)

// SetPolicy makes another policy rule the network of the running sandbox.
// What is fixed at the start (files, identity, Landlock) may only be repeated.
// It returns how many live connections were cut; an error leaves the old
// policy in force.
func (s *Sandbox) SetPolicy(_ context.Context, doc []byte, version uint32) (cut int, err error) {
	next, err := compileRules(s.spec.PolicyName, doc, nil, s.word)
	if err != nil {
		return 0, err
	}
	if err := s.rules.sameStatics(next); err != nil {
		return 0, err
	}
	cut = s.proxy.SetPolicy(next.compiled, uint64(version))
	s.events.Emit(event.PolicyLoaded(next.doc.Source, policy.Hash(next.doc), cut))
	return cut, nil
}

// sameStatics refuses a change of what cannot change while processes run.
func (r *rules) sameStatics(next *rules) error {
	if next.filesystem == nil || r.filesystem == nil {
		return nil
	}
	was, want := *r.filesystem, *next.filesystem
	switch {
	case was.IncludeWorkdir != want.IncludeWorkdir, !slices.Equal(was.ReadOnly, want.ReadOnly), !slices.Equal(was.ReadWrite, want.ReadWrite):
		return fixed("filesystem_policy")
	case r.hard != next.hard:
		return fixed("landlock")
	}
	return nil
}

func fixed(section string) error {
	return fault.New(fault.FailedPrecondition, "%s cannot change while the sandbox runs", section).
		Hint("repeat the section as it was, or make a new sandbox with --policy").On(section)
}
