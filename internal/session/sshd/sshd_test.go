package sshd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"openshell.dev/openshell/internal/session/sessiontest"
	"openshell.dev/openshell/internal/session/sshd"
)

// client starts a server over a box and returns a client of it.
func client(t *testing.T, main ...string) (*ssh.Client, *sessiontest.Box, *sshd.Server) {
	t.Helper()
	box, err := sessiontest.New(t.TempDir(), false, main...)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sshd.New(box, filepath.Join(t.TempDir(), "key"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // net.Pipe has no buffer, and both sides speak first
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err == nil {
			_ = s.Serve(ctx, c)
		}
	}()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, chans, reqs, err := ssh.NewClientConn(near, "box", &ssh.ClientConfig{User: "sandbox", HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
		if ssh.FingerprintSHA256(k) != s.Fingerprint() {
			return errors.New("another host key")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	c := ssh.NewClient(conn, chans, reqs)
	t.Cleanup(func() {
		c.Close()
		cancel()
		box.Close()
		<-done
		l.Close()
	})
	return c, box, s
}

func TestExec(t *testing.T) {
	c, _, _ := client(t)
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Setenv("FOO", "bar baz"); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	s.Stdout, s.Stderr, s.Stdin = &out, &errOut, strings.NewReader("typed")
	err = s.Run(`echo "$FOO $BOX"; cat; echo oops >&2; exit 7`)
	var exit *ssh.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 7 || out.String() != "bar baz yes\ntyped" || errOut.String() != "oops\n" {
		t.Errorf("%q, %q, %v", out.String(), errOut.String(), err)
	}
}

func TestATerminal(t *testing.T) {
	c, _, _ := client(t)
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 33, 99, nil); err != nil {
		t.Fatal(err)
	}
	out, err := s.Output("stty size; echo $TERM; tty >/dev/null && echo tty")
	if err != nil || string(out) != "33 99\r\nxterm\r\ntty\r\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestASignal(t *testing.T) {
	c, _, _ := client(t)
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("echo ready; exec sleep 600"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(ssh.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var exit *ssh.ExitError
	if err := s.Wait(); !errors.As(err, &exit) || exit.Signal() != "TERM" {
		t.Errorf("%v, want SIGTERM", err)
	}
}

func TestTheMainProcess(t *testing.T) {
	c, _, server := client(t, "sh", "-c", "echo hello; read x; echo got $x; exit 3")
	ended := make(chan struct{}, 4)
	server.Attached = func() { ended <- struct{}{} }
	attach := func() (ssh.Channel, <-chan uint32) {
		ch, reqs, err := c.OpenChannel("session", nil)
		if err != nil {
			t.Fatal(err)
		}
		status := make(chan uint32, 1)
		go func() {
			for r := range reqs {
				if r.Type == "exit-status" {
					status <- binary.BigEndian.Uint32(r.Payload)
				}
			}
		}()
		if ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"openshell-main"})); !ok || err != nil {
			t.Fatal(ok, err)
		}
		return ch, status
	}
	line := func(r io.Reader, want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
			t.Fatalf("read %q, %v, want %q", got, err, want)
		}
	}
	first, _ := attach()
	line(first, "hello\n")
	second, status := attach() // a late one sees what was written before
	line(second, "hello\n")
	line(second.Stderr(), "read-only: another attachment owns the input\r\n")
	first.Close()
	<-ended
	// What is typed first takes the input over and is lost.
	if _, err := second.Write([]byte("lost\n")); err != nil {
		t.Fatal(err)
	}
	line(second.Stderr(), "input enabled\r\n")
	if _, err := second.Write([]byte("there\n")); err != nil {
		t.Fatal(err)
	}
	line(second, "got there\n")
	if got := <-status; got != 3 {
		t.Errorf("exit status %d, want 3", got)
	}
}

func TestConnectionsGoToTheLoopbackOnly(t *testing.T) {
	c, _, _ := client(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		s, err := l.Accept()
		if err != nil {
			return
		}
		defer s.Close()
		body, _ := io.ReadAll(s) // until the client's half-close
		_, _ = s.Write([]byte("answer to " + string(body)))
	}()
	conn, err := c.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write([]byte("q"))
	_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	if got, err := io.ReadAll(conn); string(got) != "answer to q" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := c.Dial("tcp", "192.0.2.1:80"); err == nil {
		t.Error("another host was reached")
	}
}

func TestWhatIsRefused(t *testing.T) {
	c, _, _ := client(t)
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Setenv("OPENSHELL_X", "1"); err == nil {
		t.Error("a reserved variable was set")
	}
	if err := s.RequestSubsystem("unknown"); err == nil {
		t.Error("an unknown subsystem was started")
	}
	if _, _, err := c.OpenChannel("x11", nil); err == nil {
		t.Error("an unknown channel was opened")
	}
	if ok, _, err := c.SendRequest("tcpip-forward", true, nil); ok || err != nil {
		t.Errorf("a remote forward was accepted: %v, %v", ok, err)
	}
}
