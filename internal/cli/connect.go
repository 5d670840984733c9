package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

func (a *app) connectCommand() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:               "connect [NAME]",
		Short:             "Attach to the main process of a sandbox",
		Long:              "Attach to the main process of a sandbox. Ctrl-P Ctrl-Q or Ctrl-D leaves it running.",
		ValidArgsFunction: a.completeSandboxes,
	}
	c.Flags().StringVarP(&name, "name", "n", "", "")
	c.Flags().String("editor", "", "open the sandbox in `EDITOR` instead: vscode or cursor")
	_ = c.Flags().MarkHidden("name")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		at := cmd.ArgsLenAtDash()
		if at < 0 {
			at = len(args)
		}
		command := args[at:]
		if at > 1 || at == 1 && name != "" {
			return misuse("unexpected argument %q", args[at-1]).Hint("%s sandbox connect NAME", brand.CLI)
		}
		if at == 1 {
			name = args[0]
		}
		if cmd.Flags().Changed("editor") {
			return fault.New(fault.Unsupported, "editors are not part of this version").Hint("%s sandbox connect %s", brand.CLI, orName(name))
		}
		if len(command) > 0 { // ours: a command is what exec is for
			return a.exec(cmd.Context(), &execFlags{name: name, command: command})
		}
		return a.connectTo(cmd.Context(), name)
	}
	return c
}

func (a *app) connectTo(ctx context.Context, name string) error {
	cl, name, err := a.pick(ctx, name)
	if err != nil {
		return err
	}
	defer cl.Close()
	s, err := cl.Sandbox(ctx, name)
	if err != nil {
		return err
	}
	switch {
	case phaseIs(s, openshellv1.SandboxPhase_SANDBOX_PHASE_PROVISIONING, openshellv1.SandboxPhase_SANDBOX_PHASE_STARTING):
		if s, err = a.follow(ctx, cl, s, started, lifecycleTimeout(), nil); err != nil {
			return err
		}
	case phaseIs(s, openshellv1.SandboxPhase_SANDBOX_PHASE_READY), ended(s):
	case phaseIs(s, openshellv1.SandboxPhase_SANDBOX_PHASE_STOPPED):
		return &failed{fault.New(fault.FailedPrecondition, "sandbox '%s' is not ready (phase: Stopped)", name).Hint("%s sandbox start %s", brand.CLI, name)}
	default:
		return &failed{fault.New(fault.FailedPrecondition, "sandbox '%s' is not ready (phase: %s)", name, phaseWord(s)).Hint("%s logs %s", brand.CLI, name)}
	}
	if ended(s) {
		return &failed{fault.New(fault.FailedPrecondition, "the main process of sandbox '%s' has ended with code %d", name, s.GetStatus().GetExitCode()).
			Hint("%s sandbox start %s", brand.CLI, name)}
	}
	cl.Remember(name)
	if a.interactive() {
		fmt.Fprintf(a.stderr, "%s: %s\n", brand.CLI, newDetacher(detachKeys()).describe())
	}
	code, err := a.attachMain(ctx, cl, s, s.GetSpec().GetTty())
	if err != nil {
		return err
	}
	if code != 0 {
		return exitCode(code)
	}
	return nil
}
