package e2e

import (
	"bufio"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"openshell.dev/openshell/test/person"
)

func TestRunGivesATerminalOfItsOwn(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		s := p.Terminal("openshell", "run", "--", "/bin/bash", "--norc", "-i")
		s.Say("tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all-$((40+2))\r")
		s.Expect("/dev/pts/0")
		s.Expect("40 100")
		s.Expect("all-42")
		if err := pty.Setsize(s.TTY, &pty.Winsize{Rows: 50, Cols: 120}); err != nil {
			t.Fatal(err)
		}
		s.Say("sleep 0.2; stty size\r")
		s.Expect("50 120")
		// Ctrl-C ends the foreground job and not the shell.
		s.Say("sleep 1000\r")
		s.Expect("sleep 1000")
		time.Sleep(200 * time.Millisecond) // until the shell has started it: nothing tells
		s.Say("\x03")
		s.Say("echo code-$?\r")
		s.Expect("code-130")
		// Job control.
		s.Say("sleep 1000 &\r")
		s.Expect("[1]")
		s.Say("jobs; kill %1; wait; echo done-$((1+1))\r")
		s.Expect("Running")
		s.Expect("done-2")
		s.Say("exit 7\r")
		if code := s.Wait(); code != 7 {
			t.Errorf("exit code %d, want 7", code)
		}
	})
}

func TestRunWithoutATerminalHasNone(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		s := p.Terminal("openshell", "run", "--no-tty", "--", "/bin/sh", "-c", "test -t 0 || test -t 1 || test -t 2 || echo no-$((1+1)); cat /dev/tty 2>&1; echo end-$((2+2))")
		s.Expect("no-2")
		s.Expect("end-4")
		if code := s.Wait(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
}

func TestSignalsReachTheCommand(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1} {
			cmd := p.Command(t.Context(), "openshell", "run", "--", "/bin/bash", "-c",
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
