package cli

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/api/gen/sandboxv1"
	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/client"
	"openshell.dev/openshell/internal/fault"
)

func (a *app) sandboxCommand() *cobra.Command {
	c := noun("sandbox", "Create sandboxes and work in them", "sb")
	c.AddCommand(a.createCommand(), a.getCommand(), a.listCommand(), a.deleteCommand(), a.stopCommand(), a.startCommand(),
		a.execCommand(), a.connectCommand(), a.uploadCommand(), hide(a.logsCommand()))
	return c
}

func hide(c *cobra.Command) *cobra.Command { c.Hidden = true; return c }

func (a *app) getCommand() *cobra.Command {
	var policyOnly bool
	c := &cobra.Command{Use: "get [NAME]", Short: "Show a sandbox", Args: between(0, 1, "a name"), ValidArgsFunction: a.completeSandboxes}
	out := outputFlag(c)
	c.Flags().BoolVar(&policyOnly, "policy-only", false, "print only the policy, as YAML")
	c.MarkFlagsMutuallyExclusive("policy-only", "output")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cl, name, err := a.pick(cmd.Context(), first(args))
		if err != nil {
			return err
		}
		defer cl.Close()
		s, err := cl.Sandbox(cmd.Context(), name)
		if err != nil {
			return err
		}
		cfg, err := cl.GetSandboxConfig(cmd.Context(), &sandboxv1.GetSandboxConfigRequest{WorkspaceScope: cl.Scope(), Name: name})
		if policyOnly {
			if err != nil {
				return err
			}
			text, err := policyText(cfg.GetPolicy())
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(text)
			return err
		}
		if err != nil && fault.KindOf(err) == fault.Unavailable {
			return err
		}
		if err != nil { // a sandbox can be looked at although its policy cannot
			a.note("warning: the policy cannot be shown: %s", err)
			cfg = nil
		}
		if !out.structured() {
			return a.sandboxText(a.stdout, s, cfg)
		}
		v := viewOf(s)
		if v.sandboxDetail, err = detailOf(s, cfg); err != nil {
			return err
		}
		return out.print(a.stdout, v)
	}
	return c
}

// paging are the flags of every list.
type paging struct {
	size   int32
	token  string
	offset int32
}

func (p *paging) flags(c *cobra.Command, size int32) {
	c.Flags().Int32Var(&p.size, "page-size", size, "at most `N` entries")
	c.Flags().StringVar(&p.token, "page-token", "", "go on where an earlier page ended")
	c.Flags().Int32Var(&p.size, "limit", size, "")
	c.Flags().Int32Var(&p.offset, "offset", 0, "")
	_ = c.Flags().MarkHidden("limit")
	_ = c.Flags().MarkHidden("offset")
}

func (a *app) listCommand() *cobra.Command {
	var page paging
	var ids, names, everywhere bool
	var selector string
	c := &cobra.Command{Use: "list", Short: "List sandboxes", Aliases: []string{"ls"}, Args: between(0, 0, "")}
	out := outputFlag(c)
	page.flags(c, 100)
	f := c.Flags()
	f.BoolVar(&ids, "ids", false, "print only ids")
	f.BoolVar(&names, "names", false, "print only names")
	f.StringVar(&selector, "selector", "", "only with these labels: `K=V,...`")
	f.BoolVar(&everywhere, "all-workspaces", false, "of all workspaces")
	c.MarkFlagsMutuallyExclusive("ids", "names", "output")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		cl, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		defer cl.Close()
		scope := cl.Scope()
		if everywhere {
			scope = client.Everywhere()
		}
		resp, err := a.listPage(cmd.Context(), cl, &openshellv1.ListSandboxesRequest{WorkspaceScope: scope, PageSize: page.size, PageToken: page.token, LabelSelector: selector}, page.offset)
		if err != nil {
			return err
		}
		list := resp.GetSandboxes()
		if out.structured() {
			views := make([]sandboxView, 0, len(list))
			for _, s := range list {
				views = append(views, viewOf(s))
			}
			if out.value == jsonList || os.Getenv(brand.Env("COMPAT")) == "0.0" {
				return out.print(a.stdout, views)
			}
			return out.print(a.stdout, struct {
				Sandboxes []sandboxView `json:"sandboxes"`
				Next      string        `json:"next_page_token"`
			}{views, resp.GetNextPageToken()})
		}
		if t := resp.GetNextPageToken(); t != "" {
			a.note("more: --page-token %s", t)
		}
		switch {
		case ids, names:
			for _, s := range list {
				line := s.GetMetadata().GetName()
				if ids {
					line = s.GetMetadata().GetId()
				} else if everywhere {
					line = s.GetMetadata().GetWorkspace() + "/" + line
				}
				fmt.Fprintln(a.stdout, clean(line))
			}
			return nil
		case len(list) == 0:
			fmt.Fprintln(a.stdout, "No sandboxes found.")
			return nil
		}
		head, lines := []string{"NAME", "CREATED", "PHASE"}, [][]string{}
		if everywhere {
			head = append([]string{"WORKSPACE"}, head...)
		}
		for _, s := range list {
			m := s.GetMetadata()
			l := []string{m.GetName(), stamp(m.GetCreatedTime()), phaseWord(s)}
			if everywhere {
				l = append([]string{m.GetWorkspace()}, l...)
			}
			lines = append(lines, l)
		}
		return rows(a.stdout, head, lines)
	}
	return c
}

// listPage fetches one page; an offset of the old spelling is skipped by
// paging, because tokens are all there is.
func (a *app) listPage(ctx context.Context, cl *client.Client, req *openshellv1.ListSandboxesRequest, offset int32) (*openshellv1.ListSandboxesResponse, error) {
	resp, err := cl.ListSandboxes(ctx, req)
	if err != nil || offset <= 0 {
		return resp, err
	}
	all := resp.GetSandboxes()
	for int32(len(all)) < offset+req.GetPageSize() && resp.GetNextPageToken() != "" {
		req.PageToken = resp.GetNextPageToken()
		if resp, err = cl.ListSandboxes(ctx, req); err != nil {
			return nil, err
		}
		all = append(all, resp.GetSandboxes()...)
	}
	all = all[min(int(offset), len(all)):]
	return &openshellv1.ListSandboxesResponse{Sandboxes: all[:min(len(all), int(req.GetPageSize()))]}, nil
}

func (a *app) deleteCommand() *cobra.Command {
	var all bool
	wait := true
	var timeout float64
	c := &cobra.Command{Use: "delete NAME... | --all", Short: "Delete sandboxes", Aliases: []string{"rm"}, ValidArgsFunction: a.completeSandboxes}
	c.Flags().BoolVar(&all, "all", false, "delete every sandbox of the workspace")
	c.Flags().BoolVar(&wait, "wait", true, "wait until they are gone")
	c.Flags().Float64Var(&timeout, "timeout", lifecycleTimeout().Seconds(), "wait at most `SECS`")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case all && len(args) > 0:
			return misuse("--all and names contradict each other").Hint("%s sandbox delete --all", brand.CLI)
		case !all && len(args) == 0:
			return misuse("a name is missing").Hint("%s sandbox delete NAME", brand.CLI)
		}
		ctx := cmd.Context()
		cl, err := a.connect(ctx)
		if err != nil {
			return err
		}
		defer cl.Close()
		if all {
			if args, err = allNames(ctx, cl); err != nil {
				return err
			}
			if len(args) == 0 {
				fmt.Fprintln(a.stdout, "No sandboxes to delete.")
				return nil
			}
		}
		bad := false
		for _, name := range args {
			if err := a.deleteOne(ctx, cl, name, wait, time.Duration(timeout*float64(time.Second))); err != nil {
				if len(args) == 1 || ctx.Err() != nil || fault.KindOf(err) == fault.Unavailable {
					return err
				}
				a.complain(err)
				bad = true
			}
		}
		if bad {
			return exitCode(exitFailed)
		}
		return nil
	}
	return c
}

func (a *app) deleteOne(ctx context.Context, cl *client.Client, name string, wait bool, limit time.Duration) error {
	a.endForwards(cl.Workspace, name)
	resp, err := cl.DeleteSandbox(ctx, &openshellv1.DeleteSandboxRequest{WorkspaceScope: cl.Scope(), Name: name, AllowMissing: true})
	if err != nil {
		return err
	}
	cl.Forget(name)
	switch resp.GetOutcome() {
	case openshellv1.DeletionOutcome_DELETION_OUTCOME_ALREADY_ABSENT:
		a.mild(a.stdout, "Sandbox %s not found", name)
		return nil
	case openshellv1.DeletionOutcome_DELETION_OUTCOME_ACCEPTED:
		if !wait {
			a.mild(a.stdout, "Deletion of sandbox %s accepted, cleanup pending", name)
			return nil
		}
		if err := a.waitGone(ctx, cl, name, resp.GetSandboxId(), limit); err != nil {
			return err
		}
	}
	a.done(a.stdout, "Deleted sandbox %s", name)
	return nil
}

// waitGone polls: a watch of something that vanishes has no last event.
func (a *app) waitGone(ctx context.Context, cl *client.Client, name, id string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		s, err := cl.Sandbox(ctx, name)
		switch {
		case fault.KindOf(err) == fault.NotFound && err != nil:
			return nil
		case ctx.Err() == context.DeadlineExceeded:
			return fault.New(fault.DeadlineExceeded, "sandbox %q is still being deleted after %s", name, limit).Hint("%s sandbox get %s", brand.CLI, name)
		case err != nil:
			return err
		case id != "" && s.GetMetadata().GetId() != id:
			return nil // a successor of the same name
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func allNames(ctx context.Context, cl *client.Client) ([]string, error) {
	var out []string
	for token := ""; ; {
		resp, err := cl.ListSandboxes(ctx, &openshellv1.ListSandboxesRequest{WorkspaceScope: cl.Scope(), PageSize: 1000, PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, s := range resp.GetSandboxes() {
			out = append(out, s.GetMetadata().GetName())
		}
		if next := resp.GetNextPageToken(); next != "" && next != token {
			token = next
			continue
		}
		return out, nil
	}
}

// lifecycleTimeout is how long stop, start and delete wait.
func lifecycleTimeout() time.Duration { return secondsVar("LIFECYCLE_TIMEOUT", 300) }

func secondsVar(suffix string, fallback int) time.Duration {
	if n, err := strconv.ParseFloat(envOr(suffix, ""), 64); err == nil && n > 0 {
		return time.Duration(n * float64(time.Second))
	}
	return time.Duration(fallback) * time.Second
}

func (a *app) stopCommand() *cobra.Command {
	c := &cobra.Command{Use: "stop [NAME]", Short: "Stop a sandbox and keep its files", Args: between(0, 1, "a name"), ValidArgsFunction: a.completeSandboxes}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cl, name, err := a.pick(cmd.Context(), first(args))
		if err != nil {
			return err
		}
		defer cl.Close()
		a.endForwards(cl.Workspace, name)
		resp, err := cl.StopSandbox(cmd.Context(), &openshellv1.StopSandboxRequest{WorkspaceScope: cl.Scope(), Name: name})
		if err != nil {
			return err
		}
		if err := a.reach(cmd.Context(), cl, resp.GetSandbox(), stopped, lifecycleTimeout()); err != nil {
			return err
		}
		a.done(a.stdout, "Stopped sandbox %s", name)
		return nil
	}
	return c
}

func (a *app) startCommand() *cobra.Command {
	c := &cobra.Command{Use: "start [NAME]", Short: "Start a stopped or completed sandbox again", Args: between(0, 1, "a name"), ValidArgsFunction: a.completeSandboxes}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cl, name, err := a.pick(cmd.Context(), first(args))
		if err != nil {
			return err
		}
		defer cl.Close()
		resp, err := cl.StartSandbox(cmd.Context(), &openshellv1.StartSandboxRequest{WorkspaceScope: cl.Scope(), Name: name})
		if err != nil {
			return err
		}
		if err := a.reach(cmd.Context(), cl, resp.GetSandbox(), started, lifecycleTimeout()); err != nil {
			return err
		}
		a.done(a.stdout, "Started sandbox %s", name)
		return nil
	}
	return c
}
