package gateway

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/model"
	"openshell.dev/openshell/internal/relay"
)

// ExecSandbox implements the API: output, then exactly one exit, then OK.
func (g *Gateway) ExecSandbox(ctx context.Context, req *openshellv1.ExecSandboxRequest, stream *connect.ServerStream[openshellv1.ExecSandboxEvent]) error {
	e, err := g.openExec(ctx, "ExecSandbox", req)
	if err != nil {
		return err
	}
	defer e.close()
	var feeding sync.WaitGroup
	feeding.Go(func() { // ends when the supervisor has it or the relay is closed
		if e.conn.SendData(relay.TypeInput, req.GetStdin()) == nil {
			_ = e.conn.Send(relay.TypeInputEnd, nil)
		}
	})
	defer feeding.Wait()
	return e.pump(ctx, stream.Send)
}

// ExecSandboxInteractive implements the API. The client's half-close is the
// end of input, never a cancel, and we do not wait for it at the end.
func (g *Gateway) ExecSandboxInteractive(ctx context.Context, stream *connect.BidiStream[openshellv1.ExecSandboxInput, openshellv1.ExecSandboxEvent]) error {
	first, err := stream.Receive()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return invalid("", "the first message must be start")
		}
		return err
	}
	req := first.GetStart()
	if req == nil {
		return invalid("", "the first message must be start")
	}
	e, err := g.openExec(ctx, "ExecSandboxInteractive", req)
	if err != nil {
		return err
	}
	var feeding sync.WaitGroup
	misuse := make(chan error, 1)
	feeding.Go(func() { // ended by the read deadline below
		if err := e.conn.SendData(relay.TypeInput, req.GetStdin()); err != nil {
			return
		}
		if err := feed(stream, e.conn); err != nil {
			misuse <- err
			e.close()
		}
	})
	defer func() {
		e.close()
		if c := control(ctx); c != nil {
			_ = c.SetReadDeadline(time.Now())
		}
		feeding.Wait()
	}()
	err = e.pump(ctx, stream.Send)
	select {
	case bad := <-misuse:
		if err != nil {
			return bad
		}
	default:
	}
	return err
}

// feed passes a client's input on. It returns an error only for a message
// that breaks the contract.
func feed(stream *connect.BidiStream[openshellv1.ExecSandboxInput, openshellv1.ExecSandboxEvent], conn *relay.Conn) error {
	for {
		m, err := stream.Receive()
		if err != nil {
			if errors.Is(err, io.EOF) {
				_ = conn.Send(relay.TypeInputEnd, nil)
			}
			return nil
		}
		switch p := m.GetPayload().(type) {
		case *openshellv1.ExecSandboxInput_Stdin:
			err = conn.SendData(relay.TypeInput, p.Stdin)
		case *openshellv1.ExecSandboxInput_Resize:
			err = conn.SendResize(clampSize(p.Resize.GetRows()), clampSize(p.Resize.GetCols()))
		case *openshellv1.ExecSandboxInput_Start:
			return invalid("start", "start may be sent only once")
		default:
			return invalid("", "a message must carry stdin or resize")
		}
		if err != nil {
			return nil
		}
	}
}

func clampSize(n uint32) uint16 { return uint16(min(n, math.MaxUint16)) }

// execution is one command under way.
type execution struct {
	g     *Gateway
	conn  *relay.Conn
	close func()
	// settle records the outcome of a request id.
	settle func(exit *relay.Exit)
}

// openExec checks a request and starts its command.
func (g *Gateway) openExec(ctx context.Context, rpc string, req *openshellv1.ExecSandboxRequest) (*execution, error) {
	ws, err := g.scope(ctx, req.GetWorkspaceScope())
	if err != nil {
		return nil, err
	}
	if len(req.GetCommand()) == 0 {
		return nil, invalid("command", "command is required")
	}
	if err := checkCommand("command", req.GetCommand(), 1024, 1<<20); err != nil {
		return nil, err
	}
	if err := checkEnv("environment", req.GetEnvironment(), 0, 32<<10, 0); err != nil {
		return nil, err
	}
	if len(req.GetWorkdir()) > 4096 {
		return nil, invalid("workdir", "workdir is longer than 4096 bytes")
	}
	start := relay.Start{Kind: relay.KindExec, Argv: req.GetCommand(), Dir: req.GetWorkdir(), Shell: relay.ShellLogin, TTY: req.GetTty(),
		Rows: clampSize(req.GetRows()), Cols: clampSize(req.GetCols())}
	if req.GetNoLoginShell() {
		start.Shell = relay.ShellPlain
	}
	for k, v := range req.GetEnvironment() {
		start.Env = append(start.Env, k+"="+v)
	}
	slices.Sort(start.Env)
	if d := req.GetExecutionTimeout(); d != nil {
		if d.CheckValid() != nil || d.AsDuration() < 0 {
			return nil, invalid("execution_timeout", "execution_timeout is not valid")
		}
		start.Timeout, start.Millis = true, d.AsDuration().Milliseconds()
	}
	b, err := g.fleet.byName(ws, req.GetSandbox())
	if err != nil {
		return nil, err
	}
	if err := usable(b.get()); err != nil {
		return nil, err
	}
	settle, err := g.admits.exec(ctx, principal(ctx), rpc, ws, b.id, req)
	if err != nil {
		return nil, err
	}
	conn, err := g.openService(ctx, b, start)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	return &execution{g: g, conn: conn, close: func() { stop(); conn.Close() }, settle: settle}, nil
}

// usable reports whether commands and connections may enter a sandbox now.
// After the end of the main process they still may, until the sandbox stops.
func usable(r *record) error {
	switch l := r.s.Life; {
	case l.Phase == model.PhaseReady, l.Phase == model.PhaseCompleted, l.Phase == model.PhaseError && l.Reason == model.ReasonFailed:
		return nil
	case l.Phase == model.PhaseProvisioning && l.Reason == model.ReasonSupervisorMissing && !l.MainStarted.IsZero():
		return nil // it was ready; the session is waited for
	}
	return precondition("sandbox is not ready").Hint("it is %s: %s", r.s.Life.Phase, r.s.Life.Message)
}

// openService opens a relay that speaks frames and sends the first.
func (g *Gateway) openService(ctx context.Context, b *box, start relay.Start) (*relay.Conn, error) {
	if s := b.session(); s != nil {
		if rw := s.spare(); rw != nil {
			conn := relay.New(rw)
			if conn.SendJSON(relay.TypeStart, start) == nil {
				return conn, nil
			}
			conn.Close() // it broke while it waited
		}
	}
	stream, err := g.openRelay(ctx, b, &openshellv1.RelayOpen{ServiceId: relay.ServiceID,
		Target: &openshellv1.RelayOpen_Ssh{Ssh: &openshellv1.SshRelayTarget{}}})
	if err != nil {
		return nil, err
	}
	conn := relay.New(stream)
	if err := conn.SendJSON(relay.TypeStart, start); err != nil {
		conn.Close()
		return nil, fault.New(fault.Unavailable, "supervisor relay failed: the stream broke").Cause(err)
	}
	return conn, nil
}

// pump delivers output until the exit, which comes last. A slow client holds
// the command back.
func (e *execution) pump(ctx context.Context, send func(*openshellv1.ExecSandboxEvent) error) error {
	for {
		f, err := e.conn.Receive()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fault.New(fault.Unavailable, "exec relay closed before the command reported an exit status").Cause(err)
		}
		switch f.Type {
		case relay.TypeStarted:
		case relay.TypeOutput:
			err = send(&openshellv1.ExecSandboxEvent{Payload: &openshellv1.ExecSandboxEvent_Stdout{Stdout: &openshellv1.ExecSandboxStdout{Data: f.Payload}}})
		case relay.TypeErrput:
			err = send(&openshellv1.ExecSandboxEvent{Payload: &openshellv1.ExecSandboxEvent_Stderr{Stderr: &openshellv1.ExecSandboxStderr{Data: f.Payload}}})
		case relay.TypeExit:
			var x relay.Exit
			if err := f.Decode(&x); err != nil {
				return fault.New(fault.Internal, "the supervisor's answer is not valid").Cause(err)
			}
			e.settle(&x)
			return send(&openshellv1.ExecSandboxEvent{Payload: &openshellv1.ExecSandboxEvent_Exit{Exit: &openshellv1.ExecSandboxExit{ExitCode: int32(x.Code)}}})
		case relay.TypeFailed:
			return relayFailure(f)
		default:
			return fault.New(fault.Internal, "the supervisor's answer is not valid")
		}
		if err != nil {
			return err
		}
	}
}

// relayFailure is what a supervisor says instead of doing the work.
func relayFailure(f relay.Frame) error {
	var x relay.Failed
	if err := f.Decode(&x); err != nil {
		return fault.New(fault.Internal, "the supervisor's answer is not valid").Cause(err)
	}
	out := fault.New(fault.FromCode(x.Code), "%s", clip(x.Text))
	if x.Hint != "" {
		out = out.Hint("%s", clip(x.Hint))
	}
	return out
}
