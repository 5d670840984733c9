package runcmd

import (
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"openshell.dev/openshell/internal/session"
)

// wantTerminal decides whether the command gets a terminal of its own.
func (f *flags) wantTerminal() bool {
	switch {
	case f.tty:
		return true
	case f.noTTY:
		return false
	}
	return isTerminal(os.Stdin) && isTerminal(os.Stdout)
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

func terminalSize() session.Size {
	for _, f := range []*os.File{os.Stdout, os.Stdin, os.Stderr} {
		if cols, rows, err := term.GetSize(int(f.Fd())); err == nil && rows > 0 && cols > 0 {
			return session.Size{Rows: uint16(rows), Cols: uint16(cols)}
		}
	}
	return session.Size{Rows: 24, Cols: 80}
}

// stdio are the descriptors a command without a terminal gets: the caller's
// own where they are files, pipes or null, and a pipe with a copier where
// they are a terminal, a socket or a directory, which would be a door.
type stdio struct {
	files  [3]*os.File
	own    []*os.File // ends that were given away and are closed after the start
	output []chan struct{}
}

func openStdio() (*stdio, error) {
	s := &stdio{}
	for i, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if plain(f) {
			s.files[i] = f
			continue
		}
		r, w, err := pipe()
		if err != nil {
			s.started()
			return nil, err
		}
		if i == 0 {
			s.files[i] = r
			s.own = append(s.own, r)
			go func() { _, _ = io.Copy(w, os.Stdin); _ = w.Close() }() // ends with the process
			continue
		}
		s.files[i] = w
		s.own = append(s.own, w)
		done := make(chan struct{})
		s.output = append(s.output, done)
		go func() { _, _ = io.Copy(f, r); close(done) }()
	}
	return s, nil
}

// pipe makes a pipe whose ends are blocking, as programs expect.
func pipe() (r, w *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(p[0]), "pipe"), os.NewFile(uintptr(p[1]), "pipe"), nil
}

func plain(f *os.File) bool {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFIFO:
		return true
	case unix.S_IFCHR:
		return st.Rdev == unix.Mkdev(1, 3) || st.Rdev == unix.Mkdev(1, 5) // null, zero
	}
	return false
}

func (s *stdio) started() {
	for _, f := range s.own {
		_ = f.Close()
	}
}

// drain waits for the copied output, briefly: everything inside has ended.
func (s *stdio) drain() {
	limit := time.After(2 * time.Second)
	for _, done := range s.output {
		select {
		case <-done:
		case <-limit:
			return
		}
	}
}

// attach connects the caller's terminal with the command's until the command
// has ended and its output is written. The caller's terminal is restored.
func attach(p session.Process) error {
	if isTerminal(os.Stdin) {
		old, err := term.MakeRaw(int(os.Stdin.Fd()))
		if err != nil {
			return err
		}
		defer func() { _ = term.Restore(int(os.Stdin.Fd()), old) }()
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	copied := make(chan struct{})
	go func() {
		_, _ = io.Copy(os.Stdout, p.Stdout())
		close(copied)
	}()
	go copyInput(p) // ends with the process: a terminal read cannot be interrupted
	ended := p.(interface{ Done() <-chan struct{} }).Done()
	for {
		select {
		case <-resized:
			_ = p.Resize(terminalSize())
		case <-ended:
			select { // what the command wrote last; others may hold the terminal
			case <-copied:
			case <-time.After(200 * time.Millisecond):
			}
			return nil
		}
	}
}

// copyInput passes what is typed. At the end of an input that is no terminal
// the command gets the terminal's own end-of-file character.
func copyInput(p session.Process) {
	_, err := io.Copy(p.Stdin(), os.Stdin)
	if err == nil && !isTerminal(os.Stdin) {
		_, _ = p.Stdin().Write([]byte{4})
	}
}

// catchSignals listens to the signals that the caller's end passes on. The Go runtime
// forgets some of them when nobody listens, so they are caught before the
// command exists and passed once it does.
func catchSignals() chan os.Signal {
	ch := make(chan os.Signal, 16)
	signal.Notify(ch, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGINT)
	return ch
}

// forwardSignals passes what was and will be caught to the command until stop.
func forwardSignals(caught chan os.Signal, p session.Process) (stop func()) {
	done := make(chan struct{})
	go func() {
		for {
			select {
			case sig := <-caught:
				if n, ok := sig.(syscall.Signal); ok && p.Signal(int(n)) != nil {
					return // the sandbox has ended
				}
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(caught); close(done) }
}
