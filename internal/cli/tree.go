package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/runcmd"
)

const (
	groupSandbox = "sandbox"
	groupGateway = "gateway"
	groupMore    = "more"
)

// root builds the whole tree.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           brand.CLI,
		Short:         "A safe runtime for autonomous agents",
		Long:          brand.Title + " runs agents in sandboxes: they see the files, the programs and the network that a policy names, and nothing else.",
		Version:       brand.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE:          helpOrUnknown,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if !slices.Contains([]string{"auto", "always", "never"}, a.color) {
				return misuse("--color %q is not known", a.color).Hint("--color auto, always or never")
			}
			return nil
		},
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetVersionTemplate(brand.CLI + " {{.Version}}\n")
	root.Flags().BoolP("version", "V", false, "print the version")
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetHelpCommand(&cobra.Command{Use: "no-help", Hidden: true})
	root.SetFlagErrorFunc(explainFlag)
	root.SetUsageTemplate(usageTemplate)
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		if words := cmd.Flags().Args(); len(words) > 0 && cmd.HasSubCommands() {
			a.misused = helpOrUnknown(cmd, words[:1]) // help for a command there is not
			return
		}
		help(cmd, args)
	})
	a.globalFlags(root)
	root.AddGroup(&cobra.Group{ID: groupSandbox, Title: "Sandboxes:"}, &cobra.Group{ID: groupGateway, Title: "Gateways:"}, &cobra.Group{ID: groupMore, Title: "More:"})
	in := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	in(groupSandbox, a.runCommand(), a.sandboxCommand(), a.forwardCommand(), a.logsCommand(), a.policyCommand())
	in(groupGateway, a.gatewayCommand(), a.statusCommand(), a.whoamiCommand())
	in(groupMore, a.doctorCommand(), a.completionsCommand())
	return root
}

// noun is a command that only has commands below it.
func noun(name, short string, aliases ...string) *cobra.Command {
	return &cobra.Command{Use: name, Short: short, Aliases: aliases, Args: cobra.ArbitraryArgs, RunE: helpOrUnknown}
}

// helpOrUnknown prints the help, or says which command was probably meant.
func helpOrUnknown(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	e := misuse("unrecognized subcommand %q of %s", args[0], cmd.CommandPath())
	var names []string
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			names = append(names, c.Name())
		}
	}
	if tip := removed[cmd.Name()+" "+args[0]]; tip != "" {
		return e.Hint("%s", tip)
	}
	if near := nearest(args[0], names); near != "" {
		return e.Hint("%s %s", cmd.CommandPath(), strings.Join(append([]string{near}, args[1:]...), " "))
	}
	return e.Hint("%s --help", cmd.CommandPath())
}

// removed are words of earlier releases, with what to do instead.
var removed = map[string]string{
	"gateway start":            "the command line starts its own gateway when it needs one; a shared one is a service: systemctl --user start " + brand.Gateway,
	"gateway stop":             "systemctl --user stop " + brand.Gateway,
	"gateway destroy":          brand.CLI + " gateway remove NAME forgets a registration",
	brand.CLI + " inference":   "attach a provider: inference routes left the contract with 0.1",
	brand.CLI + " self-update": "install the new release over the old one",
	brand.CLI + " tui":         "the terminal interface is not part of this version",
	brand.CLI + " term":        "the terminal interface is not part of this version",
	brand.CLI + " version":     brand.CLI + " --version",
	brand.CLI + " help":        brand.CLI + " --help",
	brand.CLI + " provider":    "providers are not part of this version",
	brand.CLI + " profile":     "provider profiles are not part of this version",
	brand.CLI + " service":     "services are not part of this version; reach a port with: " + brand.CLI + " forward start PORT NAME",
	brand.CLI + " workspace":   "workspaces are not managed by this version; the only one is default",
	brand.CLI + " settings":    "settings are not part of this version",
	brand.CLI + " rule":        "the policy advisor is not part of this version",
	"sandbox download":         brand.CLI + " sandbox exec NAME -- tar c PATH | tar x",
	"sandbox provider":         "providers are not part of this version",
	"sandbox template":         "templates are not part of this version",
	"policy update":            brand.CLI + " policy get NAME --base > p.yaml, change it, and: " + brand.CLI + " policy set NAME --policy p.yaml",
	"gateway login":            "signing in is not part of this version",
	"gateway logout":           "signing in is not part of this version",
}

// explainFlag names the flag that was probably meant.
func explainFlag(cmd *cobra.Command, err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return known // without the library's words around it
	}
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return misuse("%s", err.Error()).Hint("%s --help", cmd.CommandPath())
	}
	if words := cmd.Flags().Args(); len(words) > 0 && cmd.HasSubCommands() {
		return helpOrUnknown(cmd, words[:1]) // the flag is of the command that was meant
	}
	name := unknown.GetSpecifiedName()
	dash := "--"
	if unknown.GetSpecifiedShortnames() != "" {
		dash = "-"
	}
	e := misuse("%s%s is not a flag of %s", dash, name, cmd.CommandPath())
	var names []string
	for _, set := range []*pflag.FlagSet{cmd.Flags(), cmd.InheritedFlags()} {
		set.VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
	}
	if near := nearest(name, names); near != "" && dash == "--" {
		return e.Hint("did you mean --%s?", near)
	}
	return e.Hint("%s --help", cmd.CommandPath())
}

// nearest returns the word closest to s, or the empty string if none is close.
func nearest(s string, words []string) string {
	best, at := "", len(s)/2+1
	for _, w := range words {
		if strings.HasPrefix(w, s) && len(s) >= 2 {
			return w
		}
		if d := distance(s, w); d < at {
			best, at = w, d
		}
	}
	return best
}

// distance counts insertions, deletions, changes and swaps of neighbours.
func distance(a, b string) int {
	var before, row []int
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row = make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(row[j-1]+1, last[j]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// between checks the number of names.
func between(low, high int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < low:
			return misuse("%s is missing", what).Hint("%s", strings.Replace(cmd.UseLine(), " [flags]", "", 1))
		case high >= 0 && len(args) > high:
			return misuse("unexpected argument %q", args[high]).Hint("%s", strings.Replace(cmd.UseLine(), " [flags]", "", 1))
		}
		return nil
	}
}

// runCommand shows `run` in the help and serves what the front hands over: a
// run whose files come from an image. Signals are the run's own business.
func (a *app) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "run [FLAGS] -- COMMAND [ARG...]",
		Short:              "Run a command in a sandbox of its own, without any daemon",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if code := runcmd.Main(context.WithoutCancel(cmd.Context()), args, a.imageSource); code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
}

// example formats the examples of a command.
func example(lines ...string) string {
	for i, l := range lines {
		lines[i] = fmt.Sprintf("  %s %s", brand.CLI, l)
	}
	return strings.Join(lines, "\n")
}

const usageTemplate = `Usage:{{if not .HasAvailableSubCommands}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{if eq (len .Groups) 0}}

Commands:{{range $cmds}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{else}}{{range $group := .Groups}}

{{.Title}}{{range $cmds}}{{if (and (eq .GroupID $group.ID) .IsAvailableCommand)}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Global flags:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
`
