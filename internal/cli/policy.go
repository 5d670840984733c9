package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/api/gen/sandboxv1"
	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/client"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/policy"
)

func (a *app) policyCommand() *cobra.Command {
	c := noun("policy", "Look at and change the policy of a sandbox", "pol")
	c.AddCommand(a.policyGetCommand(), a.policySetCommand(), a.policyListCommand())
	return c
}

func (a *app) policySetCommand() *cobra.Command {
	var file string
	var global, yes, wait bool
	var timeout float64
	c := &cobra.Command{Use: "set [NAME] --policy FILE", Short: "Replace the policy of a sandbox", Args: between(0, 1, "a name"), ValidArgsFunction: a.completeSandboxes}
	f := c.Flags()
	f.StringVar(&file, "policy", "", "policy `FILE`, YAML or JSON")
	f.BoolVar(&global, "global", false, "for every sandbox")
	f.BoolVar(&yes, "yes", false, "do not ask")
	f.BoolVar(&wait, "wait", false, "wait until the sandbox has loaded it")
	f.Float64Var(&timeout, "timeout", 60, "wait at most `SECS`")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case file == "":
			return misuse("--policy is missing").Hint("%s policy set NAME --policy FILE", brand.CLI)
		case global && wait:
			return misuse("--wait is only supported for sandbox-scoped policy updates: a global policy takes effect at once").Hint("leave out --wait")
		case global && len(args) > 0:
			return misuse("--global and a name contradict each other").Hint("%s policy set --global --policy %s", brand.CLI, file)
		}
		p, err := loadPolicy(file)
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		if global {
			return a.policySetGlobal(ctx, p, yes)
		}
		cl, name, err := a.pick(ctx, first(args))
		if err != nil {
			return err
		}
		defer cl.Close()
		before, err := cl.GetSandboxPolicyStatus(ctx, &openshellv1.GetSandboxPolicyStatusRequest{WorkspaceScope: cl.Scope(), Sandbox: name})
		if err != nil && fault.KindOf(err) != fault.NotFound && fault.KindOf(err) != fault.Unsupported {
			return err
		}
		resp, err := cl.UpdateConfig(ctx, &openshellv1.UpdateConfigRequest{WorkspaceScope: cl.Scope(), Sandbox: name, Policy: p})
		if err != nil {
			return err
		}
		if rev := before.GetRevision(); rev != nil && rev.GetVersion() == resp.GetVersion() {
			fmt.Fprintf(a.stderr, "· Policy unchanged (version %d, hash: %s)\n", resp.GetVersion(), short(resp.GetPolicyHash()))
		} else {
			a.done(a.stderr, "Policy version %d submitted (hash: %s)", resp.GetVersion(), short(resp.GetPolicyHash()))
		}
		if !wait {
			return nil
		}
		return a.policyLoaded(ctx, cl, name, resp.GetVersion(), time.Duration(timeout*float64(time.Second)))
	}
	return c
}

func (a *app) policySetGlobal(ctx context.Context, p *sandboxv1.SandboxPolicy, yes bool) error {
	cl, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := a.confirm(yes, "Replace the policy of every sandbox?", "global policy updates require confirmation; pass --yes in non-interactive mode"); err != nil {
		return err
	}
	resp, err := cl.UpdateConfig(ctx, &openshellv1.UpdateConfigRequest{Global: true, Policy: p})
	if err != nil {
		return err
	}
	a.done(a.stderr, "Global policy configured (hash: %s, settings revision: %d)", short(resp.GetPolicyHash()), resp.GetSettingsRevision())
	return nil
}

// confirm asks on a terminal; no is the default.
func (a *app) confirm(yes bool, question, refusal string) error {
	if yes {
		return nil
	}
	if !isTerminal(a.stdin) {
		return &failed{fault.New(fault.FailedPrecondition, "%s", refusal).Hint("repeat the command with --yes")}
	}
	fmt.Fprintf(a.stderr, "%s [y/N] ", question)
	line, err := bufio.NewReader(io.LimitReader(a.stdin, 64)).ReadString('\n')
	if err == nil && slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(line))) {
		return nil
	}
	return fault.New(fault.FailedPrecondition, "aborted by user")
}

// policyLoaded polls until the revision is in force, refused or replaced.
func (a *app) policyLoaded(ctx context.Context, cl *client.Client, name string, version uint32, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		resp, err := cl.GetSandboxPolicyStatus(ctx, &openshellv1.GetSandboxPolicyStatusRequest{WorkspaceScope: cl.Scope(), Sandbox: name, Version: version})
		if err != nil && ctx.Err() == nil {
			return err
		}
		switch resp.GetRevision().GetStatus() {
		case openshellv1.PolicyStatus_POLICY_STATUS_LOADED:
			a.done(a.stderr, "Policy version %d loaded (active version: %d)", version, resp.GetActiveVersion())
			return nil
		case openshellv1.PolicyStatus_POLICY_STATUS_FAILED:
			return fault.New(fault.FailedPrecondition, "policy version %d was refused by the sandbox: %s", version, clean(resp.GetRevision().GetLoadError())).
				Hint("%s policy get %s shows what is in force", brand.CLI, name)
		case openshellv1.PolicyStatus_POLICY_STATUS_SUPERSEDED:
			fmt.Fprintf(a.stderr, "⚠ Policy version %d was superseded (active version: %d)\n", version, resp.GetActiveVersion())
			return nil
		}
		select {
		case <-ctx.Done():
			if context.Cause(ctx) == context.DeadlineExceeded {
				return &failedWith{fault.New(fault.DeadlineExceeded, "policy version %d is not loaded after %s", version, limit).Hint("%s policy list %s", brand.CLI, name), exitTimeout}
			}
			return fault.New(fault.Cancelled, "interrupted")
		case <-time.After(pause):
		}
	}
}

// revisionView is one revision as programs read it.
type revisionView struct {
	Scope         string            `json:"scope"`
	Sandbox       string            `json:"sandbox"`
	Version       uint32            `json:"version"`
	Active        uint32            `json:"active_version"`
	Hash          string            `json:"hash"`
	Status        string            `json:"status"`
	Config        uint64            `json:"config_revision"`
	Source        string            `json:"policy_source"`
	GlobalVersion *uint32           `json:"global_policy_version,omitempty"`
	Created       int64             `json:"created_at_ms"`
	Loaded        int64             `json:"loaded_at_ms"`
	Error         string            `json:"load_error"`
	Provenance    map[string]string `json:"provenance"`
	Policy        any               `json:"policy,omitempty"`
}

func statusWord(s openshellv1.PolicyStatus) string {
	return enumWord(s.String(), "POLICY_STATUS_", strings.ToLower)
}

func revisionOf(name string, r *openshellv1.SandboxPolicyRevision, active uint32) revisionView {
	return revisionView{Scope: "sandbox", Sandbox: name, Version: r.GetVersion(), Active: active, Hash: r.GetPolicyHash(), Status: statusWord(r.GetStatus()),
		Created: millis(r.GetCreatedTime()), Loaded: millis(r.GetLoadedTime()), Error: r.GetLoadError(), Provenance: orEmpty(r.GetProvenance())}
}

func (a *app) policyGetCommand() *cobra.Command {
	var rev uint32
	var full, base, global bool
	c := &cobra.Command{Use: "get [NAME]", Short: "Show the policy of a sandbox", Args: between(0, 1, "a name"), ValidArgsFunction: a.completeSandboxes}
	out := outputFlag(c, table, jsonOut, yamlOut)
	f := c.Flags()
	f.Uint32Var(&rev, "rev", 0, "the stored revision `N`; 0 is what is in force")
	f.BoolVar(&full, "full", false, "print the policy, too")
	f.BoolVar(&base, "base", false, "print the policy without the rules of providers, too")
	f.BoolVar(&global, "global", false, "the global policy")
	c.MarkFlagsMutuallyExclusive("full", "base")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if global {
			return fault.New(fault.Unsupported, "global policies are not part of this version")
		}
		cl, name, err := a.pick(ctx, first(args))
		if err != nil {
			return err
		}
		defer cl.Close()
		var v revisionView
		var p *sandboxv1.SandboxPolicy
		if rev > 0 {
			resp, err := cl.GetSandboxPolicyStatus(ctx, &openshellv1.GetSandboxPolicyStatusRequest{WorkspaceScope: cl.Scope(), Sandbox: name, Version: rev})
			if fault.KindOf(err) == fault.NotFound && err != nil {
				fmt.Fprintf(a.stderr, "No policy history found for sandbox '%s'\n", name)
				return nil
			}
			if err != nil {
				return err
			}
			v, p = revisionOf(name, resp.GetRevision(), resp.GetActiveVersion()), resp.GetRevision().GetPolicy()
		} else {
			cfg, err := cl.GetSandboxConfig(ctx, &sandboxv1.GetSandboxConfigRequest{WorkspaceScope: cl.Scope(), Name: name})
			if err != nil {
				return err
			}
			v = revisionView{Scope: "sandbox", Sandbox: name, Version: cfg.GetVersion(), Active: cfg.GetVersion(), Hash: cfg.GetPolicyHash(), Status: "effective",
				Config: cfg.GetConfigRevision(), Source: enumWord(cfg.GetPolicySource().String(), "POLICY_SOURCE_", strings.ToLower), Provenance: map[string]string{}}
			if g := cfg.GetGlobalPolicyVersion(); g != 0 {
				v.GlobalVersion = &g
			}
			p = cfg.GetPolicy()
		}
		if base {
			p = withoutProviders(p)
		}
		return a.printRevision(out, v, p, full || base, rev > 0)
	}
	return c
}

func (a *app) printRevision(out *formatFlag, v revisionView, p *sandboxv1.SandboxPolicy, withPolicy, stored bool) error {
	text, err := policyText(p)
	if err != nil {
		return err
	}
	switch out.value {
	case yamlOut: // only the document: what is written can be set again
		_, err := a.stdout.Write(text)
		return err
	case jsonOut:
		if withPolicy {
			if v.Policy, err = policyView(p); err != nil {
				return err
			}
		}
		return out.print(a.stdout, v)
	}
	w := a.stdout
	fmt.Fprintf(w, "Version: %d\nHash: %s\n", v.Version, v.Hash)
	if stored {
		fmt.Fprintf(w, "Status: %s\nActive: %d\nCreated: %d ms\nLoaded: %d ms\n", camel(strings.ToUpper(v.Status)), v.Active, v.Created, v.Loaded)
		if v.Error != "" {
			fmt.Fprintf(w, "Error: %s\n", clean(v.Error))
		}
	} else {
		fmt.Fprintf(w, "Status: Effective\nSource: %s\nConfig rev: %d\n", v.Source, v.Config)
		if v.GlobalVersion != nil {
			fmt.Fprintf(w, "Global: %d\n", *v.GlobalVersion)
		}
	}
	if withPolicy {
		fmt.Fprintf(w, "---\n%s", text)
	}
	return nil
}

// withoutProviders drops the rules that attached providers brought.
func withoutProviders(p *sandboxv1.SandboxPolicy) *sandboxv1.SandboxPolicy {
	for key := range p.GetNetworkPolicies() {
		if strings.HasPrefix(key, policy.ReservedPrefix) {
			delete(p.NetworkPolicies, key)
		}
	}
	return p
}

func (a *app) policyListCommand() *cobra.Command {
	var page paging
	c := &cobra.Command{Use: "list [NAME]", Short: "List the policy revisions of a sandbox", Aliases: []string{"ls"}, Args: between(0, 1, "a name"), ValidArgsFunction: a.completeSandboxes}
	out := outputFlag(c)
	page.flags(c, 20)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		cl, name, err := a.pick(ctx, first(args))
		if err != nil {
			return err
		}
		defer cl.Close()
		resp, err := cl.ListSandboxPolicies(ctx, &openshellv1.ListSandboxPoliciesRequest{WorkspaceScope: cl.Scope(), Sandbox: name, PageSize: page.size, PageToken: page.token})
		if err != nil {
			return err
		}
		views := []revisionView{}
		var lines [][]string
		for _, r := range resp.GetRevisions() {
			views = append(views, revisionOf(name, r, 0))
			why := []rune(clean(r.GetLoadError()))
			lines = append(lines, []string{strconv.Itoa(int(r.GetVersion())), short(r.GetPolicyHash()), statusWord(r.GetStatus()), stamp(r.GetCreatedTime()), string(why[:min(len(why), 40)])})
		}
		if out.structured() {
			return out.print(a.stdout, struct {
				Revisions []revisionView `json:"revisions"`
				Next      string         `json:"next_page_token"`
			}{views, resp.GetNextPageToken()})
		}
		if t := resp.GetNextPageToken(); t != "" {
			a.note("more: --page-token %s", t)
		}
		if len(lines) == 0 {
			fmt.Fprintf(a.stderr, "No policy history found for sandbox '%s'\n", name)
			return nil
		}
		return rows(a.stdout, []string{"VERSION", "HASH", "STATUS", "CREATED", "ERROR"}, lines)
	}
	return c
}

func short(hash string) string { return hash[:min(len(hash), 12)] }
