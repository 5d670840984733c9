// Command openshell-gateway is the control plane: it serves the API, keeps
// the state and runs sandboxes through a driver.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/config"
	"openshell.dev/openshell/internal/fault"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		os.Exit(complain(err))
	}
}

// complain prints an error as every program of ours does. The person who
// started a gateway owns it, so private causes are shown.
func complain(err error) int {
	fmt.Fprintf(os.Stderr, "%s: error: %s\n", brand.Gateway, strings.TrimSuffix(fault.Detail(err), "."))
	if h := fault.HintOf(err); h != "" {
		fmt.Fprintf(os.Stderr, "%s: hint: %s\n", brand.Gateway, h)
	}
	return fault.KindOf(err).Exit()
}

// flags are the settings given on the command line.
type flags struct {
	given map[string]*[]string
	file  string
}

func root() *cobra.Command {
	f := &flags{given: map[string]*[]string{}}
	c := &cobra.Command{
		Use: brand.Gateway, Short: "Serve the gateway", Version: brand.Version, Args: noArgs,
		SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := f.load(cmd)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), s)
		},
	}
	c.Flags().SortFlags = false
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return misuse(err) })
	f.register(c)
	c.AddCommand(certsCommand(), configCommand())
	return c
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return misuse(fmt.Errorf("unknown command %q", args[0]))
	}
	return nil
}

func misuse(err error) error {
	return fault.New(fault.InvalidArgument, "%v", err).Hint("%s --help", brand.Gateway)
}

// register makes a flag for every setting that has one.
func (f *flags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.file, "config", "", "configuration file (default: the user's gateway.toml, if there is one)")
	config.FlagNames(func(name string, isBool bool) {
		v := &value{isBool: isBool}
		f.given[name] = &v.words
		flag := c.Flags().VarPF(v, name, "", help[name])
		if isBool {
			flag.NoOptDefVal = "true"
		}
	})
}

// help is one line for each flag.
var help = map[string]string{
	"name": "name of this installation in audit records", "bind-address": "IP address of the main port", "port": "main port",
	"health-port": "port of health answers on the same address, 0 for none", "metrics-port": "not served yet", "log-level": "debug, info, warn or error",
	"compute-driver": "what runs sandboxes: native", "disable-tls": "serve plaintext", "tls-cert": "server certificate", "tls-key": "its key",
	"tls-client-ca": "CA of client certificates", "server-san": "further name of the generated server certificate", "enable-mtls-auth": "client certificates identify users",
	"allow-unauthenticated-users": "everybody who can connect is a user and its admin", "db-url": "database, sqlite:PATH",
	"state-dir": "directory of everything the gateway keeps", "socket": "Unix socket for clients of the same account, or off",
	"idle-exit": "end after this long without sandboxes, such as 15m; 0 for never", "image-cache-dir": "directory of unpacked images",
	"enable-loopback-service-http": "not served yet", "grpc-rate-limit-requests": "not served yet", "grpc-rate-limit-window-seconds": "not served yet", "oidc-issuer": "not served yet",
}

// value collects the words of one flag.
type value struct {
	words  []string
	isBool bool
}

// String implements pflag.Value.
func (v *value) String() string { return strings.Join(v.words, ",") }

// Set implements pflag.Value.
func (v *value) Set(s string) error {
	v.words = append(v.words, s)
	return nil
}

// Type implements pflag.Value.
func (v *value) Type() string {
	if v.isBool {
		return "bool"
	}
	return "value"
}

// source is where the settings of a command come from.
func (f *flags) source(cmd *cobra.Command) config.Source {
	src := config.Source{Flags: map[string][]string{}, Env: os.Getenv, Path: f.file, Explicit: f.file != ""}
	if src.Path == "" {
		src.Path, src.Explicit = config.DefaultPath(os.Getenv)
	}
	for name, words := range f.given {
		if cmd.Flags().Changed(name) {
			src.Flags[name] = *words
		}
	}
	return src
}

func (f *flags) load(cmd *cobra.Command) (config.Settings, error) { return config.Load(f.source(cmd)) }
