package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/client"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/gateways"
	"openshell.dev/openshell/internal/pki"
)

// gatewayCommand keeps the words of the process' life out of its help: a
// gateway is a service, and scripts of the contract check that.
func (a *app) gatewayCommand() *cobra.Command {
	c := noun("gateway", "Choose the gateway to talk to", "gw")
	c.AddCommand(a.gatewayAddCommand(), a.gatewayListCommand(), a.gatewaySelectCommand(), a.gatewayRemoveCommand(), a.gatewayInfoCommand())
	return c
}

func (a *app) gatewayAddCommand() *cobra.Command {
	var name, remote, issuer, clientID, audience, scopes string
	var local bool
	c := &cobra.Command{Use: "add ENDPOINT", Short: "Register a gateway and make it the active one", Args: between(1, 1, "an endpoint"),
		Example: example("gateway add http://localhost:8080", "gateway add https://gw.example.com:17670 --name work --local")}
	f := c.Flags()
	f.StringVar(&name, "name", "", "`NAME` of the registration; made from the endpoint otherwise")
	f.StringVar(&remote, "remote", "", "it runs on another machine, reached by ssh as `DEST`")
	f.BoolVar(&local, "local", false, "it runs on this machine")
	f.StringVar(&issuer, "oidc-issuer", "", "it asks for tokens of this issuer (`URL`)")
	f.StringVar(&clientID, "oidc-client-id", brand.OIDCClient, "`ID` of this client at the issuer")
	f.StringVar(&audience, "oidc-audience", "", "`AUDIENCE` of the tokens")
	f.StringVar(&scopes, "oidc-scopes", "", "`SCOPES` to ask for")
	c.MarkFlagsMutuallyExclusive("local", "remote")
	c.MarkFlagsMutuallyExclusive("oidc-issuer", "remote")
	c.RunE = func(_ *cobra.Command, args []string) error {
		endpoint := args[0]
		if strings.HasPrefix(endpoint, "ssh://") {
			if local || remote != "" {
				return misuse("an ssh:// endpoint contradicts --local and --remote").Hint("%s gateway add %s", brand.CLI, endpoint)
			}
			return fault.New(fault.Unsupported, "ssh:// endpoints are not part of this version").Hint("forward the port yourself: ssh -N -L 17670:127.0.0.1:17670 HOST, then: %s gateway add https://127.0.0.1:17670 --local", brand.CLI)
		}
		if !strings.Contains(endpoint, "://") {
			endpoint = "https://" + endpoint
		}
		u, err := client.ParseEndpoint(endpoint)
		if err != nil {
			return err
		}
		loopback := client.Loopback(u.Hostname())
		if name == "" {
			name = u.Hostname()
			if loopback {
				name = brand.Name
			}
		}
		if err := gateways.CheckName(name); err != nil {
			return err
		}
		reg, err := a.registry()
		if err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(reg.Dir(name), "metadata.json")); err == nil {
			return &failed{fault.New(fault.AlreadyExists, "gateway '%s' already exists", name).Hint("%s gateway remove %s, or choose another --name", brand.CLI, name)}
		}
		m := gateways.Metadata{Name: name, Endpoint: endpoint, RemoteHost: remote}
		switch {
		case issuer != "":
			m.AuthMode, m.IsRemote = "oidc", !local
			m.OIDCIssuer, m.OIDCClientID, m.OIDCAudience, m.OIDCScopes = issuer, clientID, audience, scopes
		case u.Scheme == "http":
			m.AuthMode, m.IsRemote = "plaintext", !local && !loopback
		case local || remote != "" || loopback:
			m.AuthMode, m.IsRemote = "mtls", !local && !loopback
			if err := a.importCertificates(reg, name, local || loopback); err != nil {
				return err
			}
		default:
			m.AuthMode, m.IsRemote = "cloudflare_jwt", true
			a.note("warning: %s is registered as behind an edge; use --local or --remote for a gateway with certificates", endpoint)
		}
		if err := reg.Put(m); err != nil {
			return err
		}
		if err := reg.SetActive(name); err != nil {
			return err
		}
		a.done(a.stderr, "Gateway '%s' added and set as active", name)
		fmt.Fprintf(a.stderr, "  Endpoint: %s\n  Type: %s\n  Auth: %s\n", endpoint, typeOf(m), authOf(m))
		if u.Scheme == "http" && !loopback {
			a.note("warning: %s is not encrypted", endpoint)
		}
		a.warnOverride(name)
		return nil
	}
	return c
}

// importCertificates finds the client's certificates of a gateway: already in
// place, or in the bundle a gateway on this machine has made.
func (a *app) importCertificates(reg gateways.Registry, name string, local bool) error {
	dst := reg.MTLSDir(name)
	if _, err := os.Stat(filepath.Join(dst, "ca.crt")); err == nil {
		return nil
	}
	var dirs []string
	if local {
		if dir := envOr("LOCAL_TLS_DIR", ""); dir != "" {
			dirs = append(dirs, dir)
		}
		base := os.Getenv("XDG_STATE_HOME")
		if home, err := os.UserHomeDir(); base == "" && err == nil {
			base = filepath.Join(home, ".local", "state")
		}
		dirs = append(dirs, filepath.Join(base, brand.ConfigDir, "tls"))
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, pki.ClientKey)); err == nil {
			return pki.CopyClient(dir, dst)
		}
	}
	return &failed{fault.New(fault.FailedPrecondition, "mTLS certificates for gateway '%s' were not found", name).
		Hint("put ca.crt, tls.crt and tls.key into %s", dst)}
}

func typeOf(m gateways.Metadata) string {
	switch {
	case m.AuthMode == "cloudflare_jwt":
		return "cloud"
	case m.IsRemote:
		return "remote"
	}
	return "local"
}

func authOf(m gateways.Metadata) string {
	if m.AuthMode == "" {
		if strings.HasPrefix(m.Endpoint, "http://") {
			return "plaintext"
		}
		return "mtls"
	}
	return m.AuthMode
}

func (a *app) warnOverride(name string) {
	if v := envOr("GATEWAY", ""); v != "" && v != name {
		a.note("warning: %s=%s is set and will override this selection", brand.Env("GATEWAY"), v)
	}
	if v := envOr("GATEWAY_ENDPOINT", ""); v != "" {
		a.note("warning: %s=%s is set and will override this selection", brand.Env("GATEWAY_ENDPOINT"), v)
	}
}

type gatewayView struct {
	Name         string `json:"name"`
	Endpoint     string `json:"endpoint"`
	Type         string `json:"type"`
	Source       string `json:"source"`
	Auth         string `json:"auth"`
	Active       bool   `json:"active"`
	IsRemote     bool   `json:"is_remote"`
	RemoteHost   string `json:"remote_host"`
	ResolvedHost string `json:"resolved_host"`
}

func (a *app) gatewayViews() ([]gatewayView, error) {
	reg, err := a.registry()
	if err != nil {
		return nil, err
	}
	list, err := reg.List()
	if err != nil {
		return nil, err
	}
	active := a.gateway
	if active == "" {
		if active, err = reg.Active(); err != nil {
			return nil, err
		}
	}
	out := []gatewayView{}
	for _, m := range list {
		source := "system"
		if _, err := os.Stat(filepath.Join(reg.Dir(m.Name), "metadata.json")); err == nil {
			source = "user"
		}
		out = append(out, gatewayView{m.Name, m.Endpoint, typeOf(m), source, authOf(m), m.Name == active, m.IsRemote, m.RemoteHost, m.ResolvedHost})
	}
	return out, nil
}

func (a *app) gatewayListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List the registered gateways", Aliases: []string{"ls"}, Args: between(0, 0, "")}
	out := outputFlag(c)
	c.RunE = func(*cobra.Command, []string) error {
		views, err := a.gatewayViews()
		if err != nil {
			return err
		}
		if out.structured() {
			return out.print(a.stdout, views)
		}
		return a.gatewayTable(views)
	}
	return c
}

func (a *app) gatewayTable(views []gatewayView) error {
	if len(views) == 0 {
		fmt.Fprintln(a.stdout, "No gateways found.")
		return nil
	}
	head, lines, remote := []string{"", "NAME", "ENDPOINT", "TYPE", "SOURCE", "AUTH"}, [][]string{}, false
	for _, v := range views {
		remote = remote || v.RemoteHost != ""
	}
	if remote {
		head = append(head, "REMOTE")
	}
	for _, v := range views {
		mark := " "
		if v.Active {
			mark = "*"
		}
		l := []string{mark, v.Name, v.Endpoint, v.Type, v.Source, v.Auth}
		if remote {
			to := v.RemoteHost
			if v.ResolvedHost != "" {
				to += " -> " + v.ResolvedHost
			}
			l = append(l, to)
		}
		lines = append(lines, l)
	}
	return rows(a.stdout, head, lines)
}

func (a *app) gatewaySelectCommand() *cobra.Command {
	c := &cobra.Command{Use: "select [NAME]", Short: "Make a gateway the active one", Aliases: []string{"use"}, Args: between(0, 1, "a name"), ValidArgsFunction: a.completeGateways}
	c.RunE = func(_ *cobra.Command, args []string) error {
		reg, err := a.registry()
		if err != nil {
			return err
		}
		if len(args) == 0 {
			views, err := a.gatewayViews()
			if err != nil {
				return err
			}
			if err := a.gatewayTable(views); err != nil {
				return err
			}
			a.note("hint: %s gateway select NAME", brand.CLI)
			return nil
		}
		if _, err := reg.Get(args[0]); err != nil {
			if fault.KindOf(err) == fault.NotFound {
				return &failed{fault.New(fault.NotFound, "No gateway metadata found for '%s'.", args[0]).Hint("%s gateway list", brand.CLI)}
			}
			return err
		}
		if err := reg.SetActive(args[0]); err != nil {
			return err
		}
		a.done(a.stderr, "Active gateway set to '%s'", args[0])
		a.warnOverride(args[0])
		return nil
	}
	return c
}

func (a *app) gatewayRemoveCommand() *cobra.Command {
	c := &cobra.Command{Use: "remove [NAME]", Short: "Forget a gateway", Aliases: []string{"rm"}, Args: between(0, 1, "a name"), ValidArgsFunction: a.completeGateways}
	c.RunE = func(_ *cobra.Command, args []string) error {
		reg, err := a.registry()
		if err != nil {
			return err
		}
		active, err := reg.Active()
		if err != nil {
			return err
		}
		name := first(args)
		if name == "" {
			name = a.gateway
		}
		if name == "" {
			name = active
		}
		if name == "" {
			return misuse("a name is missing and no gateway is active").Hint("%s gateway list", brand.CLI)
		}
		if err := gateways.CheckName(name); err != nil {
			return err
		}
		dir := reg.Dir(name)
		if _, err := os.Stat(filepath.Join(dir, "metadata.json")); errors.Is(err, fs.ErrNotExist) {
			if _, err := reg.Get(name); err == nil {
				return &failed{fault.New(fault.PermissionDenied, "gateway '%s' was installed by the system and cannot be removed from user config", name).
					Hint("%s gateway select ANOTHER", brand.CLI)}
			}
			return &failed{fault.New(fault.NotFound, "No gateway metadata found for '%s'.", name).Hint("%s gateway list", brand.CLI)}
		}
		// The certificates stay: they cannot be made again from here.
		for _, file := range []string{"metadata.json", "edge_token", "cf_token", "oidc_token.json", "oidc_login_prompt_required", "last_sandbox"} {
			if err := os.Remove(filepath.Join(dir, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fault.New(fault.PermissionDenied, "cannot remove %s", filepath.Join(dir, file)).Cause(errno(err))
			}
		}
		_ = os.Remove(dir) // if nothing is left in it
		if name == active {
			if err := reg.SetActive(""); err != nil {
				return err
			}
		}
		a.done(a.stderr, "Gateway '%s' removed", name)
		return nil
	}
	return c
}
