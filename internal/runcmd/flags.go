package runcmd

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// flags are the words of one invocation.
type flags struct {
	policy   string
	allow    []string
	ro, rw   []string
	hide     []string
	workdir  string
	from     string
	env      []string
	envFiles []string
	passEnv  []string
	cpu      string
	memory   string
	pids     string
	timeout  time.Duration
	tty      bool
	noTTY    bool
	forward  []string
	events   string
	explain  bool
	output   string
	help     bool
	quiet    bool

	command []string
	set     *pflag.FlagSet
	fetch   Source
}

func newFlags() *flags {
	f := &flags{}
	s := pflag.NewFlagSet("run", pflag.ContinueOnError)
	s.SetInterspersed(false)
	s.SetOutput(io.Discard)
	s.SortFlags = false
	s.StringVar(&f.policy, "policy", "", "policy `FILE` (YAML or JSON)")
	s.StringArrayVar(&f.allow, "allow", nil, "let every program reach `HOST[:PORT]`; without a port 443 and 80")
	s.StringArrayVar(&f.ro, "ro", nil, "show host `PATH` read-only, or protect a path of the workspace")
	s.StringArrayVar(&f.rw, "rw", nil, "show host `PATH` read-write, or lift a protection of the workspace")
	s.StringArrayVar(&f.hide, "hide", nil, "hide `PATH` although it is below a shown one")
	s.StringVar(&f.workdir, "workdir", "", "workspace `DIR`, read-write (default: the current directory)")
	s.StringVar(&f.from, "from", "", "system files: host, a directory, an image reference or archive, a catalogue name (`SOURCE`)")
	s.StringArrayVar(&f.env, "env", nil, "set a variable, as `K=V`")
	s.StringArrayVar(&f.envFiles, "env-file", nil, "read variables from `FILE`, one K=V a line")
	s.StringArrayVar(&f.passEnv, "pass-env", nil, "pass the caller's variable `NAME`")
	s.StringVar(&f.cpu, "cpu", "", "processors, such as 1.5 or 500m")
	s.StringVar(&f.memory, "memory", "", "memory, such as 4Gi")
	s.StringVar(&f.pids, "pids", "", "processes and threads")
	s.DurationVar(&f.timeout, "timeout", 0, "end the command after this time, with code 124")
	s.BoolVar(&f.tty, "tty", false, "give the command a terminal")
	s.BoolVar(&f.noTTY, "no-tty", false, "give the command no terminal")
	s.StringArrayVar(&f.forward, "forward", nil, "forward a local port to the same port inside, as `[BIND:]PORT`")
	s.StringVar(&f.events, "events", "", "append security events to `FILE` as JSON lines")
	s.BoolVar(&f.explain, "explain", false, "print what is done, in order and why, and what was measured")
	s.StringVarP(&f.output, "output", "o", "", "print a summary of the run at the end: json")
	s.BoolVarP(&f.quiet, "quiet", "q", false, "do not say what was denied while it happens")
	s.BoolVarP(&f.help, "help", "h", false, "print this help")
	f.set = s
	return f
}

// parse reads the words after "run".
func parse(args []string) (*flags, error) {
	f := newFlags()
	if err := f.set.Parse(args); err != nil {
		return f, f.explainMisuse(err)
	}
	f.command = f.set.Args()
	switch {
	case f.help:
		return f, nil
	case len(f.command) == 0 && !f.explain:
		return f, misuse("a command is missing").Hint("%s run -- COMMAND [ARG...]", brand.CLI)
	case len(f.command) > 0 && f.command[0] == "":
		return f, misuse("the command is empty").Hint("%s run -- COMMAND [ARG...]", brand.CLI)
	case f.tty && f.noTTY:
		return f, misuse("--tty and --no-tty contradict each other").Hint("use one of them")
	case f.output != "" && f.output != "json":
		return f, misuse("--output %q is not known", f.output).Hint("-o json")
	case f.timeout < 0:
		return f, misuse("--timeout may not be negative").Hint("--timeout 10m")
	}
	return f, nil
}

func misuse(format string, args ...any) *fault.Error {
	return fault.New(fault.InvalidArgument, format, args...)
}

// explainMisuse names the flag that was probably meant.
func (f *flags) explainMisuse(err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		name := unknown.GetSpecifiedName()
		e := misuse("%s is not a flag of %s run", dashed(name), brand.CLI)
		if near := f.nearest(name); near != "" {
			return e.Hint("did you mean --%s?", near)
		}
		return e.Hint("%s run --help", brand.CLI)
	}
	return misuse("%s", err.Error()).Hint("%s run --help", brand.CLI)
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func (f *flags) nearest(name string) string {
	best, at := "", len(name)/2+1
	f.set.VisitAll(func(g *pflag.Flag) {
		if d := distance(name, g.Name); d < at {
			best, at = g.Name, d
		}
	})
	return best
}

// distance is the Levenshtein distance of two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		last := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := last
			if a[i-1] != b[j-1] {
				cost++
			}
			last = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

// usage is the help text.
func (f *flags) usage(w io.Writer) {
	fmt.Fprintf(w, `Run a command in a sandbox of its own, without any daemon.

The command sees the system read-only, the current directory read-write, a
private home and no network. Everything else is named with a flag or a policy.

Usage:
  %s run [flags] -- COMMAND [ARG...]

Examples:
  %[1]s run -- npm test
  %[1]s run --allow api.example.com -- ./agent
  %[1]s run --policy dev.yaml --memory 4Gi -- claude

Exit code: the command's own; 124 time limit, 125 the sandbox could not be
made, 126 the command cannot be executed, 127 it was not found, 2 misuse.

Flags:
%s`, brand.CLI, strings.TrimRight(f.set.FlagUsages(), "\n")+"\n")
}
