package person

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

// Terminal is a program of ours under a terminal, as a person uses it.
type Terminal struct {
	TTY *os.File
	t   testing.TB
	out chan byte
	end chan error
}

// Terminal starts a program under a new terminal of 100 by 40.
func (p *Person) Terminal(program string, args ...string) *Terminal {
	t := p.T
	t.Helper()
	cmd := p.Command(t.Context(), program, args...)
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	term := &Terminal{t: t, TTY: tty, out: make(chan byte, 1<<16), end: make(chan error, 1)}
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

// Say types.
func (s *Terminal) Say(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.TTY, text); err != nil {
		s.t.Fatal(err)
	}
}

// Expect reads until text has come.
func (s *Terminal) Expect(text string) {
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

// Wait returns the exit code.
func (s *Terminal) Wait() int {
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
