// Package model holds the words of the domain: ids, names and phases.
//
// It owns their spelling and their validity, nothing else: no wire types, no
// storage. Standard library only; everybody may import it.
package model

import "fmt"

// SandboxID identifies one sandbox for ever; names may be used again, ids not.
type SandboxID string

// Phase is where a sandbox stands in its life. Values are those of the 0.1.x
// wire enum SandboxPhase.
type Phase int32

// The phases of the 0.1.x contract.
const (
	PhaseUnspecified  Phase = 0
	PhaseProvisioning Phase = 1
	PhaseReady        Phase = 2
	PhaseError        Phase = 3
	PhaseDeleting     Phase = 4
	PhaseUnknown      Phase = 5
	PhaseStopping     Phase = 6
	PhaseStopped      Phase = 7
	PhaseStarting     Phase = 8
	PhaseCompleted    Phase = 9
)

// MaxName is the longest sandbox name we take: a DNS label (RFC 1035, 2.3.4).
const MaxName = 63

// CheckName reports why s cannot name an object: it must be a DNS label of
// lower-case letters, digits and inner hyphens.
func CheckName(s string) error {
	if s == "" {
		return fmt.Errorf("a name may not be empty")
	}
	if len(s) > MaxName {
		return fmt.Errorf("name %q has %d characters, at most %d are allowed", s, len(s), MaxName)
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case c == '-' && i > 0 && i < len(s)-1:
		default:
			return fmt.Errorf("name %q: %q at position %d, only lower-case letters, digits and inner hyphens are allowed", s, c, i+1)
		}
	}
	return nil
}
