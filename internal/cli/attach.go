package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/client"
	"openshell.dev/openshell/internal/fault"
)

const (
	settled       = 2 * time.Second  // an attachment that lasted this long is worth recovering
	recoverWindow = 60 * time.Second // how long a lost one is tried again
	recoverFirst  = 250 * time.Millisecond
	recoverMost   = 5 * time.Second
)

// how an attachment ended.
type ending int

const (
	lost     ending = iota // the connection; the process may go on
	finished               // the process
	left                   // the person
	broken                 // our own output
)

// attachMain stays with the main process until it ends or the person leaves,
// and returns its exit code. A lost connection is taken up again.
func (a *app) attachMain(ctx context.Context, cl *client.Client, s *openshellv1.Sandbox, tty bool) (int, error) {
	// An interruption belongs to the process inside, not to our calls.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	name, instance := s.GetMetadata().GetName(), s.GetStatus().GetMainProcessInstanceId()
	keys := newDetacher(detachKeys())
	raw := tty && isTerminal(a.stdin)
	if raw {
		old, err := term.MakeRaw(int(a.stdin.Fd()))
		if err != nil {
			return 0, fault.New(fault.Internal, "prepare the terminal").Cause(err)
		}
		defer func() { _ = term.Restore(int(a.stdin.Fd()), old) }()
	} else {
		keys = nil
	}
	in := a.typed()
	out := &modes{out: a.stdout}
	defer out.restore()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGWINCH)
	defer signal.Stop(signals)

	options := client.AttachOptions{TTY: tty, Term: termName()}
	var deadline time.Time
	pause := recoverFirst
	for {
		options.Rows, options.Cols = a.size()
		att, err := cl.Attach(ctx, name, options)
		if err == nil {
			begin := time.Now()
			end, code, why := a.stay(ctx, att, in, out, keys, signals, raw)
			att.Close()
			switch {
			case end == finished:
				return code, nil
			case end == broken:
				return 0, outputLost(why)
			case end == left:
				out.restore()
				fmt.Fprintf(a.stderr, "\r\nDetached from sandbox %s; its main process goes on.\r\n", name)
				fmt.Fprintf(a.stderr, "%s: hint: %s sandbox connect %s\r\n", brand.CLI, brand.CLI, name)
				return 0, nil
			}
			if now, err := cl.Sandbox(ctx, name); err == nil && (ended(now) || now.GetStatus().GetMainProcessInstanceId() != instance) && now.GetStatus().ExitCode != nil {
				return int(now.GetStatus().GetExitCode()), nil
			}
			if time.Since(begin) < settled {
				return 0, lostConnection(name)
			}
			deadline, pause = time.Now().Add(recoverWindow), recoverFirst
			fmt.Fprintf(a.stderr, "\r\n%s: connection to sandbox %s lost, trying again\r\n", brand.CLI, name)
		} else if deadline.IsZero() {
			return 0, err
		}
		if time.Now().After(deadline) {
			return 0, errors.Join(lostConnection(name), err)
		}
		select {
		case sig := <-signals:
			if n, ok := sig.(syscall.Signal); ok && n != syscall.SIGWINCH {
				return 128 + int(n), nil
			}
		case <-time.After(pause):
			pause = min(2*pause, recoverMost)
		}
	}
}

func lostConnection(name string) error {
	return &failedWith{fault.New(fault.Unavailable, "the connection to sandbox %q was lost", name).Hint("%s sandbox connect %s", brand.CLI, name), exitConnectLost}
}

// failedWith is an error with an exit code of its own.
type failedWith struct {
	error
	code int
}

func (f *failedWith) Unwrap() error { return f.error }

// typed reads our input into a channel; a terminal's read cannot be taken
// back, so one reader serves all attachments and ends with the process.
func (a *app) typed() <-chan []byte {
	ch := make(chan []byte)
	go func() {
		defer close(ch)
		for {
			buf := make([]byte, 16<<10)
			n, err := a.stdin.Read(buf)
			if n > 0 {
				ch <- buf[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	return ch
}

func (a *app) size() (rows, cols uint32) {
	for _, f := range []*os.File{a.stdout, a.stdin, a.stderr} {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 {
			return uint32(h), uint32(w)
		}
	}
	return 24, 80
}

// stay carries one attachment.
func (a *app) stay(ctx context.Context, att *client.Attachment, in <-chan []byte, out io.Writer, keys *detacher, signals <-chan os.Signal, raw bool) (ending, int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go att.KeepAlive(ctx) // ends with this attachment
	var copies sync.WaitGroup
	failed := make(chan error, 2)
	copy := func(dst io.Writer, src io.Reader) {
		copies.Go(func() {
			w := &watchedWriter{w: dst}
			_, _ = io.Copy(w, src)
			if w.err != nil {
				failed <- w.err
			}
		})
	}
	copy(out, att.Stdout())
	copy(a.stderr, att.Stderr())
	result := func() (ending, int, error) {
		copies.Wait()
		select {
		case err := <-failed:
			return broken, 0, err
		default:
		}
		if code, ok := att.Result(); ok {
			return finished, code, nil
		}
		return lost, 0, nil
	}
	// leave ends the attachment and waits for what still writes our output.
	leave := func(how ending, err error) (ending, int, error) {
		att.Hangup()
		copies.Wait()
		return how, 0, err
	}
	interrupts := 0
	for {
		select {
		case <-att.Done():
			return result()
		case err := <-failed:
			return leave(broken, err)
		case data, ok := <-in:
			if !ok {
				in = nil
				_ = att.CloseInput()
				continue
			}
			if keys != nil {
				var detach bool
				if data, detach = keys.feed(data); detach {
					_, _ = att.Write(data)
					return leave(left, nil)
				}
			}
			_, _ = att.Write(data) // an error means that the channel closes; Done follows
		case sig := <-signals:
			switch sig {
			case syscall.SIGWINCH:
				if raw {
					rows, cols := a.size()
					_ = att.Resize(rows, cols)
				}
			case syscall.SIGHUP:
				return leave(left, nil) // our terminal is gone; the process goes on
			default:
				if interrupts++; interrupts > 2 {
					return leave(left, nil)
				}
				_ = att.Signal(sig.(syscall.Signal))
			}
		}
	}
}

// watchedWriter remembers why writing failed.
type watchedWriter struct {
	w   io.Writer
	err error
}

func (w *watchedWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}
