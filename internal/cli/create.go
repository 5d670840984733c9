package cli

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/api/gen/sandboxv1"
	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/client"
	"openshell.dev/openshell/internal/fault"
)

// createFlags are the words of one `sandbox create`.
type createFlags struct {
	name, template, from string
	upload               []string
	noGitIgnore          bool
	keep, noKeep         bool
	gpu                  string
	cpu, memory          string
	driverConfig         string
	providers            []string
	policy               string
	forward              string
	expose               uint16
	tty, noTTY           bool
	detach               bool
	restart              string
	labels, env          []string
	approval             string
	noCredentialWarnings bool
	autoProv, noAutoProv bool
	out                  *formatFlag
	command              []string
}

func (a *app) createCommand() *cobra.Command {
	f := &createFlags{}
	c := &cobra.Command{
		Use:   "create [FLAGS] [-- COMMAND [ARG...]]",
		Short: "Create a sandbox and work in it",
		Long: `Create a sandbox and run its main process.

With a command, its output is shown and its exit code is returned; without one
a shell is started. The sandbox is kept afterwards unless --no-keep is given.`,
		Example: example("sandbox create -- claude", "sandbox create --policy dev.yaml --name box --detach -- ./server", "sandbox create --no-keep -- npm test"),
	}
	s := c.Flags()
	s.SortFlags = false
	s.StringVar(&f.name, "name", "", "`NAME` of the sandbox; two words are made up otherwise")
	s.StringVar(&f.from, "from", "", "system files: an image reference, a catalogue name, a directory or an archive (`SOURCE`)")
	s.StringVar(&f.template, "template", "", "start from the stored template `NAME`")
	s.StringVar(&f.policy, "policy", "", "policy `FILE`, YAML or JSON (variable "+brand.Env("SANDBOX_POLICY")+")")
	s.StringArrayVar(&f.env, "env", nil, "set a variable, as `K=V`; repeatable")
	s.StringArrayVar(&f.labels, "label", nil, "label the sandbox, as `K=V`; repeatable")
	s.StringArrayVar(&f.providers, "provider", nil, "attach the provider `NAME`; repeatable")
	s.StringVar(&f.cpu, "cpu", "", "processors, such as 500m, 1 or 2.5 (`QUANTITY`)")
	s.StringVar(&f.memory, "memory", "", "memory, such as 512Mi or 4Gi (`QUANTITY`)")
	s.StringVar(&f.gpu, "gpu", "", "GPUs; without a number the driver's default (`COUNT`)")
	s.Lookup("gpu").NoOptDefVal = "default"
	s.StringVar(&f.driverConfig, "driver-config-json", "", "settings for compute drivers, a JSON `OBJECT` keyed by driver")
	s.StringVar(&f.restart, "restart-policy", "never", "start the main process again: never, on-failure or always (`WHEN`)")
	s.StringVar(&f.forward, "forward", "", "forward the local port `[BIND:]PORT` to the same port inside")
	s.Uint16Var(&f.expose, "expose", 0, "expose the HTTP service on `PORT`")
	s.StringArrayVar(&f.upload, "upload", nil, "copy `LOCAL[:DEST]` into the sandbox; repeatable")
	s.BoolVar(&f.noGitIgnore, "no-git-ignore", false, "upload files that git ignores, too")
	s.BoolVar(&f.detach, "detach", false, "return as soon as the sandbox is ready")
	s.BoolVar(&f.noKeep, "no-keep", false, "delete the sandbox when its main process has ended")
	s.BoolVar(&f.keep, "keep", false, "")
	s.BoolVar(&f.tty, "tty", false, "give the main process a terminal")
	s.BoolVar(&f.noTTY, "no-tty", false, "give the main process no terminal")
	s.StringVar(&f.approval, "approval-mode", "manual", "how policy proposals are approved: manual or auto (`MODE`)")
	s.BoolVar(&f.noCredentialWarnings, "no-credential-warnings", false, "do not warn of secrets in --env")
	s.BoolVar(&f.autoProv, "auto-providers", false, "create missing providers without asking")
	s.BoolVar(&f.noAutoProv, "no-auto-providers", false, "never create missing providers")
	s.StringArrayVarP(&f.env, "e", "e", nil, "")
	for _, name := range []string{"keep", "e"} {
		_ = s.MarkHidden(name)
	}
	f.out = outputFlag(c)
	for _, pair := range [][]string{{"keep", "no-keep"}, {"no-keep", "forward"}, {"no-keep", "expose"}, {"output", "no-keep"}, {"output", "forward"},
		{"template", "from"}, {"template", "gpu"}, {"template", "cpu"}, {"template", "memory"}, {"template", "driver-config-json"}, {"template", "env"}} {
		c.MarkFlagsMutuallyExclusive(pair...)
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.words(cmd, args); err != nil {
			return err
		}
		return a.create(cmd.Context(), f)
	}
	return c
}

// words splits the arguments: what stands behind "--" is the command; one
// word before it is a name if --name is absent.
func (f *createFlags) words(cmd *cobra.Command, args []string) error {
	at := cmd.ArgsLenAtDash()
	if at < 0 {
		at = len(args)
	}
	before := args[:at]
	f.command = args[at:]
	switch {
	case len(before) == 1 && f.name == "":
		f.name = before[0]
	case len(before) > 0 && len(f.command) == 0 && len(before) > 1:
		return misuse("a command stands behind --").Hint("%s sandbox create -- %s", brand.CLI, quoteAll(before))
	case len(before) > 0:
		return misuse("unexpected argument %q", before[len(before)-1]).Hint("%s sandbox create --name NAME -- COMMAND", brand.CLI)
	case cmd.ArgsLenAtDash() >= 0 && len(f.command) == 0:
		return misuse("the command behind -- is missing").Hint("leave out -- for a shell")
	case len(f.command) > 0 && f.command[0] == "":
		return misuse("the command is empty")
	}
	return nil
}

// create is the whole command; everything that can be known to be wrong is
// said before anything is sent.
func (a *app) create(ctx context.Context, f *createFlags) error {
	req, err := a.createRequest(f)
	if err != nil {
		return err
	}
	var bind string
	var port uint16
	if f.forward != "" {
		if bind, port, err = parseForward("--forward", f.forward); err != nil {
			return err
		}
		if err := portFree(bind, port); err != nil {
			return err
		}
	}
	cl, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := f.source(req, cl.Target); err != nil {
		return err
	}
	attach := !f.detach && !f.out.structured() && (len(f.command) > 0 || a.interactive())
	req.WorkspaceScope, req.AwaitMainProcessAttachment = cl.Scope(), attach
	resp, err := cl.CreateSandbox(ctx, req)
	if err != nil {
		return explainCreate(err, req.GetName())
	}
	s := resp.GetSandbox()
	name := s.GetMetadata().GetName()
	if name == "" {
		return fault.New(fault.Internal, "the gateway answered without a sandbox")
	}
	if !f.noKeep {
		cl.Remember(name)
	}
	p := a.progress(!f.out.structured())
	a.created(f, name)
	if f.approval == "auto" {
		a.approveAutomatically(ctx, cl, name)
	}
	s, err = a.follow(ctx, cl, s, ready, secondsVar("PROVISION_TIMEOUT", 300), p)
	p.end()
	if err != nil {
		if ctx.Err() != nil {
			a.leftBehind(f, cl, name)
		}
		return err
	}
	for _, u := range f.upload {
		local, dest, _ := strings.Cut(u, ":")
		if err := a.upload(ctx, cl, name, local, dest, !f.noGitIgnore); err != nil {
			a.note("sandbox %s is kept; try the upload again with: %s sandbox upload %s %s", name, brand.CLI, name, quoteAll(strings.Fields(local+" "+dest)))
			return err
		}
	}
	if f.forward != "" {
		if err := a.forwardBackground(ctx, cl, s, bind, port); err != nil {
			return err
		}
	}
	for service, url := range resp.GetServiceUrls() {
		if service == "" {
			service = "(unnamed)"
		}
		a.note("service %s: %s", clean(service), clean(url))
	}
	if f.out.structured() {
		return a.printCreated(ctx, cl, f, s, resp.GetServiceUrls())
	}
	if !attach {
		return nil
	}
	code, err := a.attachMain(ctx, cl, s, s.GetSpec().GetTty() || req.GetSpec().GetTty())
	if f.noKeep {
		a.removeQuietly(cl, name)
	}
	if err != nil {
		return err
	}
	if code != 0 {
		return exitCode(code)
	}
	return nil
}

// interactive reports whether a person sits on both ends.
func (a *app) interactive() bool { return isTerminal(a.stdin) && isTerminal(a.stdout) }

// created says the name where the contract's scripts look for it.
func (a *app) created(f *createFlags, name string) {
	switch {
	case f.out.structured():
		fmt.Fprintln(a.stderr, "Provisioning sandbox (structured output on stdout)...")
	case isTerminal(a.stdout):
		fmt.Fprintf(a.stderr, "\nCreated sandbox: %s\n\n", name)
	default:
		fmt.Fprintf(a.stdout, "\nCreated sandbox: %s\n\n", name)
	}
}

// leftBehind says what an interruption leaves, or removes it.
func (a *app) leftBehind(f *createFlags, cl *client.Client, name string) {
	if f.noKeep {
		a.removeQuietly(cl, name)
		return
	}
	a.note("sandbox %s is still being made; delete it with: %s sandbox delete %s", name, brand.CLI, name)
}

// removeQuietly deletes an ephemeral sandbox; the gateway may have been
// faster.
func (a *app) removeQuietly(cl *client.Client, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := cl.DeleteSandbox(ctx, &openshellv1.DeleteSandboxRequest{WorkspaceScope: cl.Scope(), Name: name, AllowMissing: true})
	if err != nil {
		a.note("warning: sandbox %s could not be deleted: %s", name, err)
		a.note("hint: %s sandbox delete %s", brand.CLI, name)
	}
}

func (a *app) printCreated(ctx context.Context, cl *client.Client, f *createFlags, s *openshellv1.Sandbox, urls map[string]string) error {
	if fresh, err := cl.Sandbox(ctx, s.GetMetadata().GetName()); err == nil {
		s = fresh
	}
	v := viewOf(s)
	v.ServiceURLs = orEmpty(urls)
	return f.out.print(a.stdout, v)
}

func (a *app) approveAutomatically(ctx context.Context, cl *client.Client, name string) {
	_, err := cl.UpdateConfig(ctx, &openshellv1.UpdateConfigRequest{WorkspaceScope: cl.Scope(), Sandbox: name, SettingKey: "proposal_approval_mode",
		SettingValue: &sandboxv1.SettingValue{Value: &sandboxv1.SettingValue_StringValue{StringValue: "auto"}}})
	if err != nil {
		a.note("warning: policy proposals of sandbox %s are approved by hand: %s", name, err)
	}
}

func explainCreate(err error, name string) error {
	if fault.KindOf(err) == fault.AlreadyExists && name != "" {
		return &failed{fault.New(fault.AlreadyExists, "a sandbox named %q exists already", name).
			Hint("%s sandbox connect %s, or delete it first: %s sandbox delete %s", brand.CLI, name, brand.CLI, name)}
	}
	return err
}

// portFree reports a port that somebody uses before a sandbox is made for it.
func portFree(bind string, port uint16) error {
	l, err := net.Listen("tcp", net.JoinHostPort(bind, strconv.Itoa(int(port))))
	if err != nil {
		return portTaken(bind, port, err)
	}
	return l.Close()
}

func (a *app) wantTTY(f *createFlags) bool {
	switch {
	case f.tty:
		return true
	case f.noTTY:
		return false
	}
	return isTerminal(a.stdin) && isTerminal(a.stdout)
}

func termName() string {
	if t := os.Getenv("TERM"); t != "" {
		return t
	}
	return "xterm-256color"
}
