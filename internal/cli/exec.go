package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/protobuf/types/known/durationpb"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/client"
	"openshell.dev/openshell/internal/fault"
)

const (
	stdinGrace = 10 * time.Millisecond // how long a pipe may take to be at its end
	stdinOne   = 1 << 20               // what fits into one request
	stdinChunk = 64 << 10
)

type execFlags struct {
	name, workdir    string
	timeout          float64
	tty, noTTY       bool
	noLogin, noStdin bool
	env              []string
	command          []string
}

func (a *app) execCommand() *cobra.Command {
	f := &execFlags{}
	c := &cobra.Command{
		Use:                "exec [SANDBOX] [FLAGS] -- COMMAND [ARG...]",
		Short:              "Run a command in a sandbox",
		Long:               "Run a command in a ready sandbox and return its exit code.\n\nExit code: the command's own; 124 time limit, 74 output could not be delivered.",
		Example:            example("sandbox exec box -- ls -la", "echo hi | "+brand.CLI+" sandbox exec -n box -- cat"),
		DisableFlagParsing: true, // a command without -- has flags of its own
		ValidArgsFunction:  a.completeSandboxes,
	}
	s := c.Flags()
	s.SortFlags = false
	s.StringVarP(&f.name, "name", "n", "", "`NAME` of the sandbox")
	s.StringVar(&f.workdir, "workdir", "", "run in `DIR` inside")
	s.Float64Var(&f.timeout, "timeout", 0, "end the command after `SECS` with code 124; 0 is never")
	s.BoolVar(&f.tty, "tty", false, "give the command a terminal")
	s.BoolVar(&f.noTTY, "no-tty", false, "give the command no terminal")
	s.BoolVar(&f.noLogin, "no-login-shell", false, "do not read the login shell's start-up files")
	s.BoolVar(&f.noStdin, "no-stdin", false, "give the command an empty input")
	s.StringArrayVar(&f.env, "env", nil, "set a variable for this command, as `K=V`; repeatable")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		help, err := f.words(cmd, args)
		if err != nil {
			return err
		}
		if help {
			return cmd.Help()
		}
		return a.exec(cmd.Context(), f)
	}
	return c
}

// words reads the flags before "--", or, when -n names the sandbox, before
// the first word of a command that has no "--".
func (f *execFlags) words(cmd *cobra.Command, args []string) (help bool, err error) {
	cmd.DisableFlagParsing = false
	at := slices.Index(args, "--")
	flags := args
	if at >= 0 {
		flags = args[:at]
	} else {
		cmd.Flags().SetInterspersed(false)
	}
	if err := cmd.ParseFlags(flags); err != nil {
		return false, explainFlag(cmd, err)
	}
	if h, _ := cmd.Flags().GetBool("help"); h {
		return true, nil
	}
	before := cmd.Flags().Args()
	if at >= 0 {
		f.command = args[at+1:]
		switch {
		case len(before) > 1 || len(before) == 1 && f.name != "":
			return false, misuse("unexpected argument %q", before[len(before)-1]).Hint("%s sandbox exec NAME -- %s", brand.CLI, quoteAll(f.command))
		case len(before) == 1:
			f.name = before[0]
		}
	} else if f.name != "" {
		f.command = before
	} else if len(before) > 0 {
		return false, misuse("the command stands behind --").Hint("%s sandbox exec %s -- %s", brand.CLI, before[0], orCommand(quoteAll(before[1:])))
	}
	switch {
	case len(f.command) == 0:
		return false, misuse("a command is missing").Hint("%s sandbox exec %s -- COMMAND", brand.CLI, orName(f.name))
	case f.command[0] == "":
		return false, misuse("the command is empty")
	case f.tty && f.noTTY:
		return false, misuse("--tty and --no-tty contradict each other").Hint("use one of them")
	case f.timeout < 0:
		return false, misuse("--timeout may not be negative").Hint("--timeout 60")
	}
	return false, nil
}

func orCommand(s string) string {
	if s == "" {
		return "COMMAND"
	}
	return s
}

func orName(s string) string {
	if s == "" {
		return "NAME"
	}
	return s
}

func (a *app) exec(ctx context.Context, f *execFlags) error {
	env, err := environment(f.env)
	if err != nil {
		return err
	}
	cl, name, err := a.pick(ctx, f.name)
	if err != nil {
		return err
	}
	defer cl.Close()
	tty := f.tty || !f.noTTY && a.interactive()
	req := &openshellv1.ExecSandboxRequest{WorkspaceScope: cl.Scope(), Sandbox: name, Command: f.command, Workdir: f.workdir, Environment: env,
		Tty: tty, NoLoginShell: f.noLogin}
	if f.timeout > 0 {
		req.ExecutionTimeout = durationpb.New(time.Duration(f.timeout * float64(time.Second)))
	}
	if tty {
		req.Rows, req.Cols = a.size()
		if req.Environment["TERM"] == "" {
			req.Environment = orEmpty(req.Environment)
			req.Environment["TERM"] = termName()
		}
	}
	in := a.stdin
	if f.noStdin || !tty && isTerminal(a.stdin) {
		in = nil // a terminal is nobody's input unless asked for
	}
	code, err := a.execOn(ctx, cl, req, in)
	if err != nil {
		return a.explainExec(ctx, cl, name, err)
	}
	cl.Remember(name)
	if code != 0 {
		return exitCode(code)
	}
	return nil
}

// execOn runs one command with in as its input (nil: empty) and our output as
// its output, and returns its exit code.
func (a *app) execOn(ctx context.Context, cl *client.Client, req *openshellv1.ExecSandboxRequest, in *os.File) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if in == nil || (!req.GetTty() && !isTerminal(in)) {
		var rest <-chan []byte
		if in != nil {
			req.Stdin, rest = readAhead(in)
		}
		if rest == nil {
			stream, err := cl.ExecSandbox(ctx, req)
			if err != nil {
				return 0, err
			}
			defer stream.Close()
			return a.deliver(func() (*openshellv1.ExecSandboxEvent, error) {
				if stream.Receive() {
					return stream.Msg(), nil
				}
				if err := stream.Err(); err != nil {
					return nil, err
				}
				return nil, io.EOF
			}, a.stdout)
		}
		early := req.Stdin
		req.Stdin = nil
		return a.interact(ctx, cl, req, early, rest, false)
	}
	return a.interact(ctx, cl, req, nil, a.typed(), isTerminal(in))
}

// readAhead reads what is already there. If that is all, rest is nil;
// otherwise rest yields what follows.
func readAhead(in *os.File) (early []byte, rest <-chan []byte) {
	ch := make(chan []byte)
	go func() {
		defer close(ch)
		for {
			buf := make([]byte, stdinChunk)
			n, err := in.Read(buf)
			if n > 0 {
				ch <- buf[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	limit := time.After(stdinGrace)
	for len(early) < stdinOne-stdinChunk {
		select {
		case data, ok := <-ch:
			if !ok {
				return early, nil
			}
			early = append(early, data...)
		case <-limit:
			return early, ch
		}
	}
	return early, ch
}

// interact runs a command whose input comes bit by bit.
func (a *app) interact(ctx context.Context, cl *client.Client, req *openshellv1.ExecSandboxRequest, early []byte, in <-chan []byte, raw bool) (int, error) {
	if raw {
		old, err := term.MakeRaw(int(a.stdin.Fd()))
		if err != nil {
			return 0, fault.New(fault.Internal, "prepare the terminal").Cause(err)
		}
		defer func() { _ = term.Restore(int(a.stdin.Fd()), old) }()
	}
	stream, err := cl.ExecSandboxInteractive(ctx)
	if err != nil {
		return 0, err
	}
	defer stream.CloseResponse()
	send := func(m *openshellv1.ExecSandboxInput) bool { return stream.Send(m) == nil }
	send(&openshellv1.ExecSandboxInput{Payload: &openshellv1.ExecSandboxInput_Start{Start: req}})
	over := make(chan struct{})
	defer close(over)
	resized := make(chan os.Signal, 1)
	if raw {
		signal.Notify(resized, syscall.SIGWINCH)
		defer signal.Stop(resized)
	}
	eof := req.GetTty() && !raw                             // a terminal inside ends its input by a character
	go feed(over, in, early, eof, resized, a, send, stream) // ends with this call
	out := &modes{out: a.stdout}
	defer out.restore()
	return a.deliver(func() (*openshellv1.ExecSandboxEvent, error) { return stream.Receive() }, out)
}

type halfCloser interface{ CloseRequest() error }

// feed sends input and sizes until the command is over. It is the only sender.
func feed(over <-chan struct{}, in <-chan []byte, early []byte, eof bool, resized <-chan os.Signal, a *app, send func(*openshellv1.ExecSandboxInput) bool, stream halfCloser) {
	input := func(p []byte) bool {
		return send(&openshellv1.ExecSandboxInput{Payload: &openshellv1.ExecSandboxInput_Stdin{Stdin: p}})
	}
	if len(early) > 0 && !input(early) {
		return
	}
	for {
		select {
		case <-over:
			return
		case data, ok := <-in:
			if !ok {
				if eof {
					input([]byte{4})
				}
				_ = stream.CloseRequest()
				return
			}
			if !input(data) {
				return
			}
		case <-resized:
			rows, cols := a.size()
			send(&openshellv1.ExecSandboxInput{Payload: &openshellv1.ExecSandboxInput_Resize{Resize: &openshellv1.ExecSandboxWindowResize{Rows: rows, Cols: cols}}})
		}
	}
}

// deliver writes the output and returns the exit code, which comes last.
func (a *app) deliver(next func() (*openshellv1.ExecSandboxEvent, error), out io.Writer) (int, error) {
	for {
		e, err := next()
		if errors.Is(err, io.EOF) {
			return 0, &failed{fault.New(fault.Unavailable, "the command's result did not arrive: the stream ended early")}
		}
		if err != nil {
			return 0, err
		}
		switch p := e.GetPayload().(type) {
		case *openshellv1.ExecSandboxEvent_Stdout:
			_, err = out.Write(p.Stdout.GetData())
		case *openshellv1.ExecSandboxEvent_Stderr:
			_, err = a.stderr.Write(p.Stderr.GetData())
		case *openshellv1.ExecSandboxEvent_Exit:
			return int(p.Exit.GetExitCode()), nil
		}
		if err != nil {
			return 0, outputLost(err)
		}
	}
}

func outputLost(err error) error {
	return &failedWith{fault.New(fault.Internal, "the command's output could not be written").Cause(err), exitOutputLost}
}

// explainExec adds to a sandbox that is not ready what to do about it.
func (a *app) explainExec(ctx context.Context, cl *client.Client, name string, err error) error {
	var wire *connect.Error
	if fault.KindOf(err) != fault.FailedPrecondition || !errors.As(err, &wire) || fault.HintOf(err) != "" {
		return err
	}
	s, serr := cl.Sandbox(ctx, name)
	if serr != nil || phaseIs(s, openshellv1.SandboxPhase_SANDBOX_PHASE_READY) {
		return err
	}
	f := fault.New(fault.FailedPrecondition, "sandbox '%s' is not ready (phase: %s)", name, phaseWord(s))
	switch {
	case ended(s), phaseIs(s, openshellv1.SandboxPhase_SANDBOX_PHASE_STOPPED):
		f.Hint("%s sandbox start %s", brand.CLI, name)
	case phaseIs(s, openshellv1.SandboxPhase_SANDBOX_PHASE_ERROR):
		f.Hint("%s logs %s", brand.CLI, name)
	default:
		f.Hint("%s sandbox get %s", brand.CLI, name)
	}
	return &failed{f}
}
