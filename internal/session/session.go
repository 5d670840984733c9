// Package session is what may be done with a running sandbox: start a
// process in it, talk to its main process, reach a port inside.
//
// It owns the vocabulary (Command, Process, Box) and the multiplexer of the
// main process. It does not know how a process gets inside (launch) nor who
// asks (a terminal, the gateway, SSH).
package session

import (
	"context"
	"io"
	"net"
)

// Size is the size of a terminal in character cells. Zero means unknown.
type Size struct {
	Rows, Cols uint16
}

// Command is a process to be started inside a sandbox.
type Command struct {
	// Argv is the program and its arguments. Argv[0] is looked up in the
	// PATH of Env inside the sandbox unless it has a slash.
	Argv []string
	// Env is the whole environment, as KEY=VALUE.
	Env []string
	// Dir is the working directory inside; empty means the sandbox's own.
	Dir string
	// TTY gives the process a terminal of its own as 0, 1 and 2.
	TTY bool
	// Size is the first size of that terminal.
	Size Size
}

// Exit is how a process ended.
type Exit struct {
	// Code is the exit code, or 128 plus the signal.
	Code int
	// Signal ended the process; 0 if it exited by itself.
	Signal int
	// Reason is a sentence when something other than the process itself
	// ended it (a limit, a lost launcher); otherwise empty.
	Reason string
}

// Process is a running process inside a sandbox.
//
// With a terminal Stdout carries everything and Stderr is nil. Closing Stdin
// is end of file for the process without a terminal; with one it does nothing.
// Wait may be called once; output may still be read after it.
type Process interface {
	PID() int // inside the sandbox
	Stdin() io.WriteCloser
	Stdout() io.ReadCloser
	Stderr() io.ReadCloser
	Resize(Size) error
	Signal(sig int) error
	Wait(ctx context.Context) (Exit, error)
}

// Box is a running sandbox as others see it.
type Box interface {
	// Spawn starts a process beside the main one, under the same
	// confinement and with the environment given.
	Spawn(ctx context.Context, cmd Command) (Process, error)
	// Dial connects to a TCP port on the loopback of the sandbox.
	Dial(ctx context.Context, port uint16) (net.Conn, error)
	// Main is the multiplexer of the main process.
	Main() *Main
	// Environ is the environment that the main process has, which every
	// further process gets by default.
	Environ() []string
	// Workdir is the working directory of the main process.
	Workdir() string
}
