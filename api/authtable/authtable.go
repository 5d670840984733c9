// Package authtable says who may call an RPC, as the contract itself states it.
//
// It owns the reading of the authorization option out of the generated
// descriptors, once, into an immutable table. It decides nothing: the gateway
// does, from the rule found here. A word it does not know, and a rule that
// contradicts itself, is an error of Load and so stops the gateway's start. An
// RPC without a rule has the zero Rule, which is for nobody.
package authtable

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/api/gen/optionsv1"
)

// Mode is the kind of principal an RPC is for. The zero value is nobody.
type Mode uint8

// The modes of the contract.
const (
	Nobody          Mode = iota
	Unauthenticated      // anybody, without a look at credentials
	Bearer               // a user
	Sandbox              // the supervisor of a sandbox, with its token
	Dual                 // a user or a sandbox
	Operator             // a client certificate of an operator, never a token
	Peer                 // another replica of the gateway
)

var modes = map[string]Mode{
	"unauthenticated": Unauthenticated,
	"bearer":          Bearer,
	"sandbox":         Sandbox,
	"dual":            Dual,
	"operator":        Operator,
	"peer":            Peer,
}

// String returns the contract's word, "nobody" for the zero value.
func (m Mode) String() string {
	for word, mode := range modes {
		if mode == m {
			return word
		}
	}
	return "nobody"
}

// Users reports whether a user principal may call at all.
func (m Mode) Users() bool { return m == Bearer || m == Dual }

// Sandboxes reports whether a sandbox principal may call at all.
func (m Mode) Sandboxes() bool { return m == Sandbox || m == Dual }

// Role is what a user must be. The zero value asks for no role: then only the
// scope and the mode count.
type Role uint8

// The roles of the contract, each including those before it.
const (
	NoRole         Role = iota
	WorkspaceUser       // member of the workspace that the request names
	WorkspaceAdmin      // its administrator
	PlatformAdmin       // administrator of the whole gateway
)

// String returns the contract's word, "none" for the zero value.
func (r Role) String() string {
	return [...]string{"none", "user", "admin", "platform_admin"}[min(r, PlatformAdmin)]
}

// Rule says who may call one RPC.
type Rule struct {
	Mode  Mode
	Role  Role   // of users; a sandbox has none and must own what it names
	Scope string // of users, where scopes are in use; empty: none asked for
}

// Table holds the rules of the services it was loaded from. It never changes.
type Table struct {
	rules map[string]Rule
}

// Load reads the rules of the given services, of the gateway's own service if
// none is given.
func Load(services ...protoreflect.ServiceDescriptor) (*Table, error) {
	if len(services) == 0 {
		services = []protoreflect.ServiceDescriptor{
			openshellv1.File_openshell_v1_openshell_proto.Services().ByName("OpenShell"),
		}
	}
	t := &Table{rules: map[string]Rule{}}
	for _, service := range services {
		for i := range service.Methods().Len() {
			method := service.Methods().Get(i)
			option, _ := proto.GetExtension(method.Options(), optionsv1.E_Authorization).(*optionsv1.AuthorizationRule)
			rule, err := parse(option)
			if err != nil {
				return nil, fmt.Errorf("reading who may call %s: %w", method.FullName(), err)
			}
			t.rules[fmt.Sprintf("/%s/%s", service.FullName(), method.Name())] = rule
		}
	}
	return t, nil
}

// Rule returns the rule of a procedure such as "/openshell.v1.OpenShell/Health".
// A procedure the table does not know has the zero Rule: nobody.
func (t *Table) Rule(procedure string) Rule { return t.rules[procedure] }

// Len returns the number of RPCs in the table.
func (t *Table) Len() int { return len(t.rules) }

// parse turns the words of an option into a rule. No option is nobody.
func parse(option *optionsv1.AuthorizationRule) (Rule, error) {
	if option == nil {
		return Rule{}, nil
	}
	mode, ok := modes[option.GetAuthMode()]
	if !ok {
		return Rule{}, fmt.Errorf("auth_mode %q is not known", option.GetAuthMode())
	}
	rule := Rule{Mode: mode, Scope: option.GetScope()}
	switch workspace, global := option.GetWorkspaceRole(), option.GetGlobalRole(); {
	case workspace != "" && global != "":
		return Rule{}, fmt.Errorf("workspace_role %q and global_role %q exclude each other", workspace, global)
	case workspace == "user":
		rule.Role = WorkspaceUser
	case workspace == "admin":
		rule.Role = WorkspaceAdmin
	case global == "platform_admin":
		rule.Role = PlatformAdmin
	case workspace != "" || global != "":
		return Rule{}, fmt.Errorf("role %q is not known", workspace+global)
	}
	switch {
	case !mode.Users() && (rule.Role != NoRole || rule.Scope != ""):
		return Rule{}, fmt.Errorf("mode %s takes neither role nor scope", mode)
	case rule.Role != NoRole && rule.Scope == "":
		return Rule{}, fmt.Errorf("role %s without a scope", rule.Role)
	}
	return rule, nil
}
