package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/client"
	"openshell.dev/openshell/internal/doctor"
	"openshell.dev/openshell/internal/sibling"
)

// probeWord is the hidden command that the doctor's child runs.
const probeWord = "probe-in-namespaces"

func (a *app) doctorCommand() *cobra.Command {
	var trial bool
	c := &cobra.Command{Use: "doctor", Short: "Find out what this machine lets a sandbox do, by trying it", Aliases: []string{"dr"}, Args: cobra.ArbitraryArgs,
		Long: "Try everything that a sandbox needs and say what is missing, what that means, and the command that cures it.\n\nExit code: 0 if sandboxes run here, else 1."}
	run := func(cmd *cobra.Command, out *formatFlag) error {
		state, err := client.StateDir()
		if err != nil {
			return err
		}
		o := doctor.Options{Probe: []string{"/proc/self/exe", "doctor", probeWord}, StateDir: state, Gateway: a.gatewayFinding}
		if trial {
			o.Trial = tryRun
		}
		r := doctor.Run(cmd.Context(), o)
		if out.structured() {
			err = out.print(a.stdout, r)
		} else {
			err = r.Write(a.stdout, a.stateMark)
		}
		if err == nil && !r.OK {
			return exitCode(exitFailed)
		}
		return err
	}
	out := outputFlag(c)
	c.Flags().BoolVar(&trial, "trial", true, "also make a sandbox and run a command in it")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return helpOrUnknown(cmd, args)
		}
		return run(cmd, out)
	}
	check := &cobra.Command{Use: "check", Hidden: true, Args: between(0, 0, "")} // the contract's spelling
	checkOut := outputFlag(check)
	check.RunE = func(cmd *cobra.Command, _ []string) error { return run(cmd, checkOut) }
	probe := &cobra.Command{Use: probeWord, Hidden: true, RunE: func(*cobra.Command, []string) error { return doctor.Probe(os.Stdout) }}
	c.AddCommand(check, probe)
	return c
}

func (a *app) stateMark(s doctor.State) string {
	const wide = len("unneeded")
	word, code := s.String(), "32"
	switch s {
	case doctor.Missing:
		code = "31"
	case doctor.Limited:
		code = "33"
	}
	return a.colour(a.stdout, code, word) + strings.Repeat(" ", wide-len(word))
}

// gatewayFinding is the line about the gateway, which `run` does not need.
func (a *app) gatewayFinding(ctx context.Context) doctor.Finding {
	v := a.probe(ctx)
	f := doctor.Finding{Name: "gateway", State: doctor.Limited, Fix: v.hint}
	switch v.Status {
	case "not_configured":
		f.State, f.Detail, f.Fix = doctor.Unneeded, "none is configured; the first sandbox starts a private one", ""
	case "connected":
		f.State, f.Detail = doctor.Present, v.Gateway+" at "+v.Server+", version "+clean(v.Version)
		if v.skew {
			f.State, f.Consequence, f.Fix = doctor.Limited, "it is of another release line than this program ("+brand.Version+")", "use the client of the gateway's release"
		}
		if v.Authentication != nil && v.Authentication.Status == "failed" {
			f.State, f.Consequence = doctor.Limited, "it does not accept your credentials: "+v.Authentication.Error
		}
	default:
		f.Detail, f.Consequence = v.Gateway+" at "+v.Server+" does not answer", "sandboxes of a gateway do not work; "+brand.CLI+" run does"
		if v.Error != nil {
			f.Detail = *v.Error
		}
		if o, err := a.options(false); err == nil {
			if t, err := client.Find(o); err == nil && t.Private {
				f.State, f.Detail, f.Consequence, f.Fix = doctor.Unneeded, "the private one is asleep; the next command that needs it starts it", "", ""
			}
		}
	}
	return f
}

// tryRun makes a real sandbox, the way a person would.
func tryRun(ctx context.Context) error {
	front, err := sibling.Find(brand.CLI)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", brand.Name+"-doctor-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, front, "run", "--no-tty", "--quiet", "--", "true")
	cmd.Dir = dir
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		for line := range strings.Lines(said.String()) {
			if _, after, ok := strings.Cut(line, "error: "); ok {
				return errors.New(clean(strings.TrimSpace(after)))
			}
		}
		return err
	}
	return nil
}
