package authn

import (
	"slices"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// Mode says which class of caller a method is for. The zero value is nobody.
type Mode uint8

// The modes of the contract.
const (
	Closed          Mode = iota // no rule: nobody
	Unauthenticated             // everybody, even without a principal
	Bearer                      // users
	SandboxOnly                 // sandboxes
	Dual                        // users and sandboxes
	Operator                    // operators, whom this gateway does not know yet
	Peer                        // other replicas, of which there are none
)

// Modes maps the words of the method option to modes.
var Modes = map[string]Mode{
	"unauthenticated": Unauthenticated, "bearer": Bearer, "sandbox": SandboxOnly, "dual": Dual, "operator": Operator, "peer": Peer,
}

// Rule is the authorization of one method.
type Rule struct {
	Mode          Mode
	Scope         string // needed if the principal's scopes count
	PlatformAdmin bool
	WorkspaceRole string // user or admin: checked by the handler against the workspace
}

// Allow reports whether p may call a method with this rule at all.
func (r Rule) Allow(p Principal) error {
	switch r.Mode {
	case Unauthenticated:
		return nil
	case Bearer:
		if p.Kind == Sandbox {
			return denied("sandbox principals may not call this method")
		}
	case SandboxOnly:
		if p.Kind == User {
			return denied("this method requires a sandbox principal")
		}
	case Dual:
	case Operator:
		return denied("this method requires an operator certificate")
	case Peer:
		return denied("this method requires a peer principal")
	default:
		return denied("this method is not open to anybody")
	}
	switch p.Kind {
	case Sandbox:
		return nil
	case User:
	default:
		return unauthenticated("missing authorization header")
	}
	if r.PlatformAdmin && !p.Admin() {
		return denied("role '" + brand.Name + "-admin' required")
	}
	if r.Scope != "" && p.Provider == "oidc" && !slices.Contains(p.Scopes, r.Scope) && !slices.Contains(p.Scopes, brand.ScopeAll) {
		return denied("scope '" + r.Scope + "' required")
	}
	return nil
}

func denied(text string) error { return fault.New(fault.PermissionDenied, "%s", text) }
