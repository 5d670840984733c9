// Package cli is the command line against a gateway.
//
// It owns the command tree, the flags, what is printed and the exit codes, in
// the spelling of the 0.1.x contract; where that has an error we may do what
// was meant (see docs/). stdout carries what was asked for, stderr everything
// else. It decides nothing: what a command means is asked of the gateway
// through package client. `run` is package runcmd, shown here for the help.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/client"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/gateways"
	"openshell.dev/openshell/internal/image"
)

// Exit codes beside those of fault and of remote commands.
const (
	exitFailed      = 1
	exitMisuse      = 2
	exitOutputLost  = 74
	exitTimeout     = 124
	exitConnectLost = 255
	exitInterrupted = 130
)

// app is one invocation.
type app struct {
	stdin, stdout, stderr *os.File

	gateway   string
	endpoint  string
	insecure  bool
	workspace string
	verbose   int
	color     string

	misused error        // found where no error can be returned
	image   *image.Image // of `run --from`
}

// Main runs one command line (without the program's name) and returns its
// exit code.
func Main(ctx context.Context, args []string) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = a.misused
	}
	return a.exit(err)
}

// exitCode is an error that was already said, or needs no words.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// failed marks an error as the run-time kind although its fault says misuse:
// the words were right, what they name was not.
type failed struct{ error }

func (f *failed) Unwrap() error { return f.error }

// exit prints the error and chooses the code.
func (a *app) exit(err error) int {
	var code exitCode
	var remote *client.RemoteError
	var runtime *failed
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	a.complain(err)
	var coded *failedWith
	switch {
	case errors.As(err, &coded):
		return coded.code
	case fault.KindOf(err) == fault.Cancelled:
		return exitInterrupted
	case errors.As(err, &remote), errors.As(err, &runtime):
		return exitFailed
	}
	return fault.KindOf(err).Exit()
}

// complain prints an error and its hint. Private causes are shown if they are
// of this machine; what a transport says is noise to a person unless asked for.
func (a *app) complain(err error) {
	text := fault.Detail(err)
	var wire *connect.Error
	if errors.As(err, &wire) && a.verbose == 0 {
		text = err.Error()
	}
	for line := range strings.SplitSeq(text, "\n") {
		fmt.Fprintf(a.stderr, "%s: error: %s\n", brand.CLI, line)
	}
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintf(a.stderr, "%s: hint: %s\n", brand.CLI, hint)
	}
}

// note says something beside the point, on stderr.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.stderr, "%s: %s\n", brand.CLI, fmt.Sprintf(format, args...))
}

func misuse(format string, args ...any) *fault.Error {
	return fault.New(fault.InvalidArgument, format, args...)
}

// registry finds the configuration of this account.
func (a *app) registry() (gateways.Registry, error) {
	r, err := gateways.Default()
	if err != nil {
		return r, err
	}
	if !filepath.IsAbs(r.System) {
		a.note("warning: %s is not an absolute path and is ignored", brand.Env("SYSTEM_GATEWAY_DIR"))
		r.System = brand.SystemDir
	}
	return r, nil
}

// options gathers where the gateway is to be looked for.
func (a *app) options(start bool) (client.Options, error) {
	r, err := a.registry()
	if err != nil {
		return client.Options{}, err
	}
	if a.workspace == "" {
		return client.Options{}, misuse("--workspace may not be empty").Hint("--workspace default")
	}
	return client.Options{Registry: r, Gateway: a.gateway, Endpoint: a.endpoint, Insecure: a.insecure, Workspace: a.workspace,
		Start: start && os.Getenv(brand.Env("STRICT")) != "1", Say: a.note}, nil
}

// connect prepares the connection that most commands need.
func (a *app) connect(ctx context.Context) (*client.Client, error) {
	o, err := a.options(true)
	if err != nil {
		return nil, err
	}
	return client.Connect(ctx, o)
}

// pick connects and chooses the sandbox: the one named, or the last used.
func (a *app) pick(ctx context.Context, name string) (*client.Client, string, error) {
	c, err := a.connect(ctx)
	if err != nil {
		return nil, "", err
	}
	name, chosen, err := c.Choose(name)
	if err != nil {
		return nil, "", err
	}
	if chosen {
		fmt.Fprintf(a.stderr, "→ Using sandbox '%s' (last used)\n", name)
	}
	return c, name, nil
}

// envOr returns one of our variables; an empty one counts as unset.
func envOr(suffix, fallback string) string {
	if v := os.Getenv(brand.Env(suffix)); v != "" {
		return v
	}
	return fallback
}

// first returns the first argument, or the empty string.
func first(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return ""
}

func (a *app) globalFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVarP(&a.gateway, "gateway", "g", envOr("GATEWAY", ""), "use the gateway registered as `NAME` (variable "+brand.Env("GATEWAY")+")")
	f.StringVar(&a.endpoint, "gateway-endpoint", envOr("GATEWAY_ENDPOINT", ""), "use the gateway at `URL` (variable "+brand.Env("GATEWAY_ENDPOINT")+")")
	f.BoolVar(&a.insecure, "gateway-insecure", truth(envOr("GATEWAY_INSECURE", "")), "do not verify the gateway's certificate")
	f.StringVar(&a.workspace, "workspace", envOr("WORKSPACE", "default"), "workspace `NAME` (variable "+brand.Env("WORKSPACE")+")")
	f.CountVarP(&a.verbose, "verbose", "v", "say more; repeat for still more")
	f.StringVar(&a.color, "color", envOr("COLOR", "auto"), "colours: auto, always or never (`WHEN`)")
	for _, name := range []string{"gateway", "gateway-endpoint", "workspace", "color"} {
		f.Lookup(name).DefValue = "" // the environment is nobody's default in the help
	}
}

// truth reads a switch of the environment: anything but 0 and false.
func truth(s string) bool { return s != "" && s != "0" && !strings.EqualFold(s, "false") }
