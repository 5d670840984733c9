// Package launch is the inside half: pid 1 of a sandbox.
//
// It furnishes the namespaces it was started in, hands the network's
// descriptors to the outside half, measures the walls on the very thread that
// will fork the agent, and then starts processes, reaps them, and answers who
// holds a socket. It holds no secret, decides nothing, and parses nothing that
// the agent wrote except /proc. When its socket ends, it ends, and the kernel
// ends everything inside with it. Only cmd/openshell-sandbox runs it.
package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/launch/wire"
	"openshell.dev/openshell/internal/mounts"
	"openshell.dev/openshell/internal/trim"
)

// ControlFD is the descriptor of the socket to the outside half.
const ControlFD = 3

// Main runs the launcher until the sandbox is over and returns its exit code.
// A failed step is reported on the socket by name and ends the process with 125.
func Main() int {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "the inside half of a sandbox; it is started by the outside half, never by hand")
		return 2
	}
	conn, err := wire.New(ControlFD)
	if err != nil {
		return 125
	}
	l := &launcher{conn: conn, started: time.Now(), forked: make(chan struct{}, 1)}
	if err := l.run(); err != nil {
		l.report(err)
		return 125
	}
	return 0
}

// idleAfter is how long nobody has asked anything before memory is given back.
const idleAfter = time.Second

type launcher struct {
	conn    *wire.Conn
	plan    wire.Plan
	started time.Time
	phases  []wire.Phase
	table   table
	forge   *forge
	mounts  mounts.Plan   // kept for Renew
	notes   []string      // what was left out on the way
	forked  chan struct{} // a child may exist
}

// stepError names the step that failed.
type stepError struct {
	step string
	err  error
}

func (e *stepError) Error() string { return e.step + ": " + e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

func (l *launcher) run() error {
	for i := range steps {
		s := &steps[i]
		begin := time.Now()
		if err := s.run(l); err != nil {
			return &stepError{s.Name, err}
		}
		l.phases = append(l.phases, wire.Phase{Name: s.Name, Micros: uint64(time.Since(begin).Microseconds())})
	}
	return l.serve()
}

func (l *launcher) report(err error) {
	m := wire.Failed{Step: "serve", Text: err.Error()}
	var at *stepError
	if errors.As(err, &at) {
		m.Step, m.Text = at.step, at.err.Error()
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		m.Errno = int(errno)
	}
	_ = l.conn.Send(0, &m) // nobody is left to tell when this fails
}

// serve answers requests until the socket ends.
func (l *launcher) serve() error {
	go l.reap() // for the life of the process
	idle := time.AfterFunc(idleAfter, trim.Once)
	defer idle.Stop()
	for {
		f, err := l.conn.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := l.handle(f); err != nil {
			return err
		}
		idle.Reset(idleAfter)
	}
}
