package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/client"
	"openshell.dev/openshell/internal/fault"
)

// statusView is the answer of `status`, which never fails.
type statusView struct {
	Gateway        string    `json:"gateway"`
	Server         string    `json:"server"`
	Status         string    `json:"status"`
	Authentication *authView `json:"authentication"`
	Auth           *string   `json:"auth"`
	Version        string    `json:"version"`
	ClientVersion  string    `json:"client_version"`
	HTTPStatus     *int      `json:"http_status"`
	Error          *string   `json:"error"`

	hint string
	skew bool
}

type authView struct {
	Status   string `json:"status"`
	Provider string `json:"provider,omitempty"`
	Mode     string `json:"mode,omitempty"`
	Error    string `json:"error,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

const probeTimeout = 5 * time.Second

func (a *app) statusCommand() *cobra.Command {
	c := &cobra.Command{Use: "status", Short: "Show whether the gateway answers", Args: between(0, 0, "")}
	out := outputFlag(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		v := a.probe(cmd.Context())
		if out.structured() {
			return out.print(a.stdout, v)
		}
		w := a.stdout
		if v.Status == "not_configured" {
			fmt.Fprintf(w, "No gateway configured.\n\nThe first sandbox starts a private one; to use another:\n  openshell gateway add <endpoint>\n")
			return nil
		}
		fmt.Fprintln(w, a.colour(w, "1", "Server Status"))
		fmt.Fprintf(w, "  Gateway: %s\n  Server: %s\n  Status: %s\n", clean(v.Gateway), clean(v.Server), statusWords[v.Status])
		if v.Authentication != nil {
			fmt.Fprintf(w, "  Authentication: %s\n", clean(v.Authentication.text()))
		}
		if v.Version != "" {
			fmt.Fprintf(w, "  Version: %s\n", clean(v.Version))
		}
		if v.skew {
			fmt.Fprintf(w, "  Client version: %s (another release line: some commands may not work)\n", v.ClientVersion)
		}
		if v.Error != nil {
			fmt.Fprintf(w, "  Error: %s\n", clean(*v.Error))
		}
		if v.hint != "" {
			a.note("hint: %s", v.hint)
		}
		return nil
	}
	return c
}

var statusWords = map[string]string{"connected": "Connected", "connected_http": "Connected (HTTP)", "error": "Error", "disconnected": "Disconnected"}

func (v *authView) text() string {
	switch {
	case v.Provider != "":
		return "authenticated (" + v.Provider + ")"
	case v.Mode != "":
		return "not required (" + v.Mode + ")"
	case v.Error != "":
		return "failed: " + v.Error
	case v.Reason != "":
		return "unverified: " + v.Reason
	}
	return v.Status
}

func (v *statusView) fail(state string, err error) {
	text := err.Error()
	v.Status, v.Error, v.hint = state, &text, fault.HintOf(err)
}

// probe asks and never fails. It starts nothing.
func (a *app) probe(ctx context.Context) *statusView {
	v := &statusView{ClientVersion: brand.Version, Status: "error"}
	o, err := a.options(false)
	if err != nil {
		v.fail("error", err)
		return v
	}
	target, err := client.Find(o)
	if client.NoGateway(err) {
		v.Status = "not_configured"
		return v
	}
	if err != nil {
		v.fail("error", err)
		return v
	}
	v.Gateway, v.Server = target.Name, target.Endpoint
	cl, err := client.Connect(ctx, o)
	if err != nil {
		v.fail("error", err)
		return v
	}
	defer cl.Close()
	if target.AuthMode == "oidc" || target.AuthMode == "cloudflare_jwt" {
		word := "edge_bearer"
		v.Auth = &word
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	health, err := cl.Health(ctx, &openshellv1.HealthRequest{})
	if err != nil {
		if code, herr := cl.Healthz(ctx); herr == nil {
			v.HTTPStatus = &code
			if code == 200 {
				v.Status = "connected_http"
				return v
			}
		}
		v.fail("disconnected", err)
		return v
	}
	v.Status, v.Version, v.skew = "connected", health.GetVersion(), client.Skewed(health.GetVersion())
	v.Authentication = a.authentication(ctx, cl)
	return v
}

func (a *app) authentication(ctx context.Context, cl *client.Client) *authView {
	_, err := cl.GetGatewayInfo(ctx, &openshellv1.GetGatewayInfoRequest{})
	kind := fault.KindOf(err)
	switch {
	case err == nil, kind == fault.PermissionDenied:
		mode := authOf(cl.Target.Metadata)
		if mode == "plaintext" {
			return &authView{Status: "not_required", Mode: mode}
		}
		if mode == "cloudflare_jwt" {
			mode = "cloudflare_access"
		}
		return &authView{Status: "authenticated", Provider: mode}
	case kind == fault.Unauthenticated:
		return &authView{Status: "failed", Error: err.Error()}
	case kind == fault.Unsupported:
		return &authView{Status: "unverified", Reason: "the gateway does not tell"}
	}
	return &authView{Status: "unverified", Reason: err.Error()}
}

func (a *app) whoamiCommand() *cobra.Command {
	c := &cobra.Command{Use: "whoami", Short: "Show who you are to the gateway", Args: between(0, 0, "")}
	out := outputFlag(c)
	type view struct {
		Subject  string   `json:"subject"`
		Name     string   `json:"display_name"`
		Roles    []string `json:"roles"`
		Scopes   []string `json:"scopes"`
		Provider string   `json:"identity_provider"`
	}
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		cl, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		defer cl.Close()
		u, err := cl.GetCurrentUser(cmd.Context(), &openshellv1.GetCurrentUserRequest{})
		if err != nil {
			return err
		}
		v := view{u.GetSubject(), u.GetDisplayName(), notNil(u.GetRoles()), notNil(u.GetScopes()), u.GetIdentityProvider()}
		if out.structured() {
			return out.print(a.stdout, v)
		}
		for _, l := range [][2]string{{"Subject", v.Subject}, {"Name", v.Name}, {"Provider", v.Provider}, {"Roles", strings.Join(v.Roles, ", ")}, {"Scopes", strings.Join(v.Scopes, ", ")}} {
			fmt.Fprintf(a.stdout, "%s: %s\n", l[0], clean(l[1]))
		}
		return nil
	}
	return c
}

func notNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func (a *app) completionsCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	c := &cobra.Command{Use: "completions SHELL", Short: "Print the completion script of a shell", Args: between(1, 1, "a shell"), ValidArgs: shells,
		Long: "Print the completion script of a shell: bash, zsh, fish or powershell.", Example: example("completions bash > ~/.local/share/bash-completion/completions/" + brand.CLI)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		root := cmd.Root()
		switch args[0] {
		case "bash":
			return root.GenBashCompletionV2(os.Stdout, true)
		case "zsh":
			return root.GenZshCompletion(os.Stdout)
		case "fish":
			return root.GenFishCompletion(os.Stdout, true)
		case "powershell":
			return root.GenPowerShellCompletionWithDesc(os.Stdout)
		}
		e := misuse("no completions for %q", args[0])
		if near := nearest(args[0], shells); near != "" {
			return e.Hint("%s completions %s", brand.CLI, near)
		}
		return e.Hint("%s completions bash, zsh, fish or powershell", brand.CLI)
	}
	return c
}

const completeTimeout = 700 * time.Millisecond

// completeSandboxes offers the names of sandboxes. It starts no gateway and
// says nothing when none answers.
func (a *app) completeSandboxes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && cmd.Name() != "delete" {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	o, err := a.options(false)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), completeTimeout)
	defer cancel()
	cl, err := client.Connect(ctx, o)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer cl.Close()
	resp, err := cl.ListSandboxes(ctx, &openshellv1.ListSandboxesRequest{WorkspaceScope: cl.Scope(), PageSize: 200})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, s := range resp.GetSandboxes() {
		names = append(names, clean(s.GetMetadata().GetName()))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeForward(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeSandboxes(cmd, nil, word)
}

func (a *app) completeGateways(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	views, err := a.gatewayViews()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, v := range views {
		names = append(names, v.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
