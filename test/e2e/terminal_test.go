package e2e

import (
	"bufio"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// terminal is a program of ours under a terminal, as a person uses it.
type terminal struct {
	t   *testing.T
	tty *os.File
	out chan byte
	end chan error
}

func (p *person) terminal(t *testing.T, program string, args ...string) *terminal {
	t.Helper()
	cmd := p.command(t.Context(), program, args...)
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, tty: tty, out: make(chan byte, 1<<16), end: make(chan error, 1)}
	go func() {
		r := bufio.NewReader(tty)
		for {
			b, err := r.ReadByte()
			if err != nil {
				close(term.out)
				term.end <- cmd.Wait()
				return
			}
			term.out <- b
		}
	}()
	t.Cleanup(func() { tty.Close(); _ = cmd.Process.Kill() })
	return term
}

func (s *terminal) say(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.tty, text); err != nil {
		s.t.Fatal(err)
	}
}

// expect reads until text has come.
func (s *terminal) expect(text string) {
	s.t.Helper()
	var got strings.Builder
	limit := time.After(20 * time.Second)
	for !strings.Contains(got.String(), text) {
		select {
		case b, ok := <-s.out:
			if !ok {
				s.t.Fatalf("ended before %q; got:\n%s", text, got.String())
			}
			got.WriteByte(b)
		case <-limit:
			s.t.Fatalf("waited in vain for %q; got:\n%s", text, got.String())
		}
	}
}

// wait returns the exit code.
func (s *terminal) wait() int {
	s.t.Helper()
	go func() {
		for range s.out { // nobody reads any more
		}
	}()
	select {
	case err := <-s.end:
		if err == nil {
			return 0
		}
		if exit, ok := err.(interface{ Sys() any }); ok {
			if ws, ok := exit.Sys().(syscall.WaitStatus); ok {
				return ws.ExitStatus()
			}
		}
		s.t.Fatal(err)
	case <-time.After(20 * time.Second):
		s.t.Fatal("does not end")
	}
	return -1
}

func TestRunGivesATerminalOfItsOwn(t *testing.T) {
	eachPerson(t, func(t *testing.T, p *person) {
		s := p.terminal(t, "openshell", "run", "--", "/bin/bash", "--norc", "-i")
		s.say("tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all-$((40+2))\r")
		s.expect("/dev/pts/0")
		s.expect("40 100")
		s.expect("all-42")
		if err := pty.Setsize(s.tty, &pty.Winsize{Rows: 50, Cols: 120}); err != nil {
			t.Fatal(err)
		}
		s.say("sleep 0.2; stty size\r")
		s.expect("50 120")
		// Ctrl-C ends the foreground job and not the shell.
		s.say("sleep 1000\r")
		s.expect("sleep 1000")
		time.Sleep(200 * time.Millisecond) // until the shell has started it: nothing tells
		s.say("\x03")
		s.say("echo code-$?\r")
		s.expect("code-130")
		// Job control.
		s.say("sleep 1000 &\r")
		s.expect("[1]")
		s.say("jobs; kill %1; wait; echo done-$((1+1))\r")
		s.expect("Running")
		s.expect("done-2")
		s.say("exit 7\r")
		if code := s.wait(); code != 7 {
			t.Errorf("exit code %d, want 7", code)
		}
	})
}

func TestRunWithoutATerminalHasNone(t *testing.T) {
	eachPerson(t, func(t *testing.T, p *person) {
		s := p.terminal(t, "openshell", "run", "--no-tty", "--", "/bin/sh", "-c", "test -t 0 || test -t 1 || test -t 2 || echo no-$((1+1)); cat /dev/tty 2>&1; echo end-$((2+2))")
		s.expect("no-2")
		s.expect("end-4")
		if code := s.wait(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
}

func TestSignalsReachTheCommand(t *testing.T) {
	eachPerson(t, func(t *testing.T, p *person) {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1} {
			cmd := p.command(t.Context(), "openshell", "run", "--", "/bin/bash", "-c",
				"trap 'echo caught; exit 9' TERM INT HUP USR1; echo ready; while :; do sleep 0.05; done")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(out)
			if line, _ := r.ReadString('\n'); line != "ready\n" {
				t.Fatalf("first line %q", line)
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			rest, _ := io.ReadAll(r)
			_ = cmd.Wait()
			if string(rest) != "caught\n" || cmd.ProcessState.ExitCode() != 9 {
				t.Errorf("%v: output %q, code %d", sig, rest, cmd.ProcessState.ExitCode())
			}
		}
	})
}
