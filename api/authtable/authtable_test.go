package authtable

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"openshell.dev/openshell/api/gen/optionsv1"
)

func TestRulesOfTheGateway(t *testing.T) {
	table, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	if table.Len() != 84 {
		t.Errorf("Len() = %d, want the 84 RPCs of the contract", table.Len())
	}
	tests := map[string]Rule{
		"Health":                 {Mode: Unauthenticated},
		"GetCurrentUser":         {Mode: Bearer},
		"GetGatewayConfig":       {Mode: Bearer, Scope: "config:read"},
		"GetGatewayInfo":         {Mode: Bearer, Role: PlatformAdmin, Scope: "config:read"},
		"GetSandbox":             {Mode: Bearer, Role: WorkspaceUser, Scope: "sandbox:read"},
		"CreateProvider":         {Mode: Bearer, Role: WorkspaceAdmin, Scope: "provider:write"},
		"GetProviderCredentials": {Mode: Operator},
		"ConnectSupervisor":      {Mode: Sandbox},
		"UpdateConfig":           {Mode: Dual, Role: WorkspaceAdmin, Scope: "config:write"},
		"PeerRelay":              {Mode: Peer},
		"NoSuchMethod":           {Mode: Nobody},
	}
	for name, want := range tests {
		if got := table.Rule("/openshell.v1.OpenShell/" + name); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

// Every RPC of the gateway is for somebody, and users are asked for a role
// everywhere but where the contract names the exception.
func TestNoRuleIsMissing(t *testing.T) {
	table, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	without := map[string]bool{
		"/openshell.v1.OpenShell/GetCurrentUser":   true,
		"/openshell.v1.OpenShell/GetGatewayConfig": true,
	}
	for procedure, rule := range table.rules {
		if rule.Mode == Nobody {
			t.Errorf("%s has no rule", procedure)
		}
		if rule.Mode.Users() && (rule.Role == NoRole) != without[procedure] {
			t.Errorf("%s asks users for role %s", procedure, rule.Role)
		}
	}
}

func TestWrongRulesAreRefused(t *testing.T) {
	tests := map[string]*optionsv1.AuthorizationRule{
		"empty":                 {},
		"unknown mode":          {AuthMode: "anyone"},
		"unknown role":          {AuthMode: "bearer", WorkspaceRole: "owner", Scope: "sandbox:read"},
		"unknown global role":   {AuthMode: "bearer", GlobalRole: "root", Scope: "sandbox:read"},
		"two roles":             {AuthMode: "bearer", WorkspaceRole: "user", GlobalRole: "platform_admin", Scope: "x"},
		"role without scope":    {AuthMode: "dual", WorkspaceRole: "user"},
		"role of a sandbox":     {AuthMode: "sandbox", WorkspaceRole: "user", Scope: "x"},
		"scope of nobody":       {AuthMode: "unauthenticated", Scope: "sandbox:read"},
		"capitalised mode":      {AuthMode: "Bearer"},
		"mode with white space": {AuthMode: "bearer "},
	}
	for name, option := range tests {
		if rule, err := parse(option); err == nil {
			t.Errorf("%s: accepted as %+v", name, rule)
		}
	}
	if rule, err := parse(nil); err != nil || rule != (Rule{}) {
		t.Errorf("no option: %+v, %v, want nobody", rule, err)
	}
	// A method whose options hold another extension, or none, has no rule.
	if got := proto.GetExtension(&descriptorpb.MethodOptions{}, optionsv1.E_Authorization).(*optionsv1.AuthorizationRule); got != nil {
		t.Errorf("extension of empty options = %v, want nil", got)
	}
}
