// Package relay carries one process, one attachment or one connection over a
// byte stream between the gateway and a supervisor.
//
// It owns the frames and their codec. It opens no stream, starts no process
// and trusts neither side: every length is bounded before memory is taken,
// and an unknown frame ends the stream. The gateway, the supervisor's uplink
// and the client use it.
package relay

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"openshell.dev/openshell/internal/brand"
)

// ServiceID, as the service_id of a relay, says that the stream carries these
// frames. Any other id carries the bytes of its target.
const ServiceID = brand.Name + ".relay/1"

// SpareChannel is the channel id of a stream that a supervisor opens before
// anybody asked: the gateway keeps it and starts the next relay of ServiceID
// on it, which saves the opening. A gateway that does not know it refuses it.
const SpareChannel = "spare"

// HeaderHostKey is the request header in which a supervisor tells, with its
// session, the fingerprint of its SSH host key.
const HeaderHostKey = brand.Name + "-host-key"

// HeaderExitDetail is the request header in which a supervisor says, with the
// exit of the main process, what ended it if that was not itself.
const HeaderExitDetail = brand.Name + "-exit-detail"

// RunOver is the reason of a refused session that no later try will mend.
const RunOver = "this run of the sandbox is over"

// Type is the kind of a frame.
//
//	frame: type (1 byte) | length (4 bytes, big endian) | payload
//
//	to the supervisor
//	  Start    JSON of Start, first and once
//	  Input    bytes for standard input or the connection
//	  InputEnd no more input
//	  Resize   rows, columns (2 bytes each)
//	  Signal   number (1 byte)
//	  Claim    take the input of the main process if it is free
//	from the supervisor
//	  Started  JSON of Started, first
//	  Output   bytes of standard output, of the terminal or the connection
//	  Errput   bytes of standard error
//	  OutputEnd no more bytes of the connection
//	  Writer   1 if the input is ours now, else 0
//	  Exit     JSON of Exit, last
//	  Failed   JSON of Failed, last
type Type uint8

// The frames.
const (
	TypeStart Type = iota + 1
	TypeInput
	TypeInputEnd
	TypeResize
	TypeSignal
	TypeClaim
	TypeStarted
	TypeOutput
	TypeErrput
	TypeOutputEnd
	TypeWriter
	TypeExit
	TypeFailed
	typeEnd
)

// Bounds of a payload. Data is cut into pieces by Write; control frames above
// their bound are an error.
const (
	MaxData  = 64 << 10
	MaxStart = 2 << 20
)

// ErrMalformed is wrapped by every error about what the peer sent.
var ErrMalformed = errors.New("malformed relay frame")

// Frame is one received frame. Payload is valid until the next Receive.
type Frame struct {
	Type    Type
	Payload []byte
}

// Kind is what a stream carries.
type Kind string

// The kinds.
const (
	KindExec Kind = "exec" // a further process
	KindMain Kind = "main" // an attachment to the main process
	KindTCP  Kind = "tcp"  // a connection to a port on the loopback inside
)

// Shell is how a command becomes a process.
type Shell string

// The shells. The zero value runs the words as they are.
const (
	ShellNone  Shell = ""
	ShellLogin Shell = "login" // bash -lc, or sh
	ShellPlain Shell = "plain" // bash -c, or sh
)

// Start asks for one thing.
type Start struct {
	Kind    Kind     `json:"kind"`
	Argv    []string `json:"argv,omitempty"`
	Env     []string `json:"env,omitempty"` // KEY=VALUE, over the sandbox's own
	Dir     string   `json:"dir,omitempty"`
	Shell   Shell    `json:"shell,omitempty"`
	TTY     bool     `json:"tty,omitempty"`
	Rows    uint16   `json:"rows,omitempty"`
	Cols    uint16   `json:"cols,omitempty"`
	Millis  int64    `json:"timeout_ms,omitempty"` // 0: no limit
	Timeout bool     `json:"timed,omitempty"`      // a limit of zero is a limit
	Write   bool     `json:"write,omitempty"`      // main: ask for the input
	Port    uint16   `json:"port,omitempty"`       // tcp
}

// Started says that it runs.
type Started struct {
	PID    int  `json:"pid,omitempty"`
	TTY    bool `json:"tty,omitempty"`
	Writer bool `json:"writer,omitempty"`
}

// Exit says how it ended.
type Exit struct {
	Code     int    `json:"code"`
	Signal   int    `json:"signal,omitempty"`
	Reason   string `json:"reason,omitempty"`
	TimedOut bool   `json:"timed_out,omitempty"` // we ended it
}

// Failed says why there is no exit.
type Failed struct {
	Code uint32 `json:"code"` // google.rpc.Code
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
}

// Conn speaks frames on a stream. One goroutine may receive while others send.
type Conn struct {
	stream io.ReadWriteCloser
	r      *bufio.Reader
	buf    []byte

	mu  sync.Mutex
	out []byte // guarded by mu: the frame being written, in one write
}

// New returns a Conn on a stream, which Close closes.
func New(stream io.ReadWriteCloser) *Conn {
	return &Conn{stream: stream, r: bufio.NewReaderSize(stream, 16<<10)}
}

// Close closes the stream.
func (c *Conn) Close() error { return c.stream.Close() }

// Send writes one frame.
func (c *Conn) Send(t Type, payload []byte) error {
	if limit := bound(t); limit < 0 || len(payload) > limit {
		return fmt.Errorf("relay frame %d of %d bytes: over the bound", t, len(payload))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out[:0], byte(t))
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(len(payload)))
	c.out = append(c.out, payload...)
	_, err := c.stream.Write(c.out)
	return err
}

// SendJSON writes a frame whose payload is v.
func (c *Conn) SendJSON(t Type, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.Send(t, body)
}

// SendData writes p in as many frames as it takes.
func (c *Conn) SendData(t Type, p []byte) error {
	for len(p) > 0 {
		n := min(len(p), MaxData)
		if err := c.Send(t, p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// SendResize writes the size of a terminal.
func (c *Conn) SendResize(rows, cols uint16) error {
	return c.Send(TypeResize, binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, rows), cols))
}

// Receive reads the next frame. io.EOF means the stream ended between frames.
func (c *Conn) Receive() (Frame, error) {
	var head [5]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return Frame{}, fmt.Errorf("%w: cut off", ErrMalformed)
		}
		return Frame{}, err
	}
	t, n := Type(head[0]), binary.BigEndian.Uint32(head[1:])
	limit := bound(t)
	if limit < 0 {
		return Frame{}, fmt.Errorf("%w: type %d", ErrMalformed, t)
	}
	if int64(n) > int64(limit) {
		return Frame{}, fmt.Errorf("%w: %d bytes in a frame of type %d", ErrMalformed, n, t)
	}
	if want := fixed(t); want >= 0 && int(n) != want {
		return Frame{}, fmt.Errorf("%w: %d bytes in a frame of type %d", ErrMalformed, n, t)
	}
	if cap(c.buf) < int(n) {
		c.buf = make([]byte, n)
	}
	c.buf = c.buf[:n]
	if _, err := io.ReadFull(c.r, c.buf); err != nil {
		return Frame{}, fmt.Errorf("%w: cut off", ErrMalformed)
	}
	return Frame{Type: t, Payload: c.buf}, nil
}

// Decode reads the JSON of a frame into v.
func (f Frame) Decode(v any) error {
	if err := json.Unmarshal(f.Payload, v); err != nil {
		return fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	return nil
}

// Size returns the terminal size of a Resize frame.
func (f Frame) Size() (rows, cols uint16) {
	return binary.BigEndian.Uint16(f.Payload), binary.BigEndian.Uint16(f.Payload[2:])
}

// bound is the largest payload of a type; negative for unknown types.
func bound(t Type) int {
	switch t {
	case TypeStart:
		return MaxStart
	case TypeInput, TypeOutput, TypeErrput, TypeStarted, TypeExit, TypeFailed:
		return MaxData
	case TypeInputEnd, TypeOutputEnd, TypeClaim, TypeSignal, TypeWriter, TypeResize:
		return 4
	}
	return -1
}

// fixed is the exact payload of a type, or negative.
func fixed(t Type) int {
	switch t {
	case TypeInputEnd, TypeOutputEnd, TypeClaim:
		return 0
	case TypeSignal, TypeWriter:
		return 1
	case TypeResize:
		return 4
	}
	return -1
}
