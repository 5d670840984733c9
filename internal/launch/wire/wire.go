// Package wire is the protocol between the two halves of a sandbox.
//
// One Unix stream socket, made by the outside half before the launcher is
// started, carries frames and descriptors in both directions. The codec is
// bounded and strict: an unknown type, a wrong length or left-over bytes end
// the connection, and with it the sandbox. It links into the launcher, so it
// imports the small half of the standard library only.
//
//	frame   = length(u32 LE, of all that follows) type(u8) nfds(u8) id(u32 LE) payload
//	string  = length(uvarint) bytes
//
//	outside -> inside                        inside -> outside
//	Plan      what the inside looks like [lock] Sockets   the network's descriptors
//	Spawn     start a process [0,1,2]        Ready     interior done, with timings
//	Signal    to a process or its group      Spawned   pid [terminal], or why not
//	Owner     who holds this socket?         Exited    a process of Spawn ended
//	OpenExe   the file a process runs        Owners    answer to Owner
//	Dial      a port on the loopback         Opened    answer to OpenExe, Dial [fd]
//	Freeze    stop or continue everything    Done      answer to Freeze, Renew
//	Renew     put protections back
//	                                         Failed    a step failed; the end
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Type names a frame. The zero value is no frame.
type Type uint8

// Frames from the outside half.
const (
	TypePlan    Type = 1
	TypeSpawn   Type = 2
	TypeSignal  Type = 3
	TypeOwner   Type = 4
	TypeOpenExe Type = 5
	TypeDial    Type = 6
	TypeFreeze  Type = 7
	TypeRenew   Type = 8
)

// Frames from the launcher.
const (
	TypeSockets Type = 65
	TypeReady   Type = 66
	TypeSpawned Type = 67
	TypeExited  Type = 68
	TypeOwners  Type = 69
	TypeOpened  Type = 70
	TypeDone    Type = 71
	TypeFailed  Type = 72
)

// Limits of a frame.
const (
	MaxFrame = 4 << 20 // bytes of payload
	MaxFDs   = 16      // descriptors with one frame
	maxItems = 1 << 16 // elements of one list
	header   = 10
)

// ErrMalformed is what a frame that breaks the table is answered with.
var ErrMalformed = errors.New("malformed frame")

// Frame is one message. ID pairs an answer with its question.
type Frame struct {
	Type    Type
	ID      uint32
	Payload []byte
	FDs     []int
}

// Message is anything that can be a payload.
type Message interface {
	Type() Type
	encode(*encoder)
	decode(*decoder)
}

// Marshal returns the payload of m.
func Marshal(m Message) []byte {
	var e encoder
	m.encode(&e)
	return e.b
}

// Unmarshal fills m from a frame of its type.
func (f Frame) Unmarshal(m Message) error {
	if f.Type != m.Type() {
		return fmt.Errorf("%w: type %d where %d was expected", ErrMalformed, f.Type, m.Type())
	}
	d := decoder{b: f.Payload}
	m.decode(&d)
	if d.bad || len(d.b) != 0 {
		return fmt.Errorf("%w: payload of type %d", ErrMalformed, f.Type)
	}
	return nil
}

type encoder struct{ b []byte }

func (e *encoder) uint(v uint64)   { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) int(v int64)     { e.b = binary.AppendVarint(e.b, v) }
func (e *encoder) string(s string) { e.uint(uint64(len(s))); e.b = append(e.b, s...) }
func (e *encoder) bytes(p []byte)  { e.uint(uint64(len(p))); e.b = append(e.b, p...) }
func (e *encoder) strings(s []string) {
	e.uint(uint64(len(s)))
	for _, v := range s {
		e.string(v)
	}
}
func (e *encoder) bool(v bool) {
	if v {
		e.b = append(e.b, 1)
	} else {
		e.b = append(e.b, 0)
	}
}

type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() { d.bad, d.b = true, nil }

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) take() []byte {
	n := d.uint()
	if d.bad || n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) string() string { return string(d.take()) }
func (d *decoder) bytes() []byte  { return append([]byte(nil), d.take()...) }

// count reads the length of a list whose elements take at least one byte.
func (d *decoder) count() int {
	n := d.uint()
	if d.bad || n > maxItems || n > uint64(len(d.b)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) strings() []string {
	n := d.count()
	if n == 0 {
		return nil
	}
	out := make([]string, 0, n)
	for range n {
		out = append(out, d.string())
	}
	if d.bad {
		return nil
	}
	return out
}

func (d *decoder) bool() bool {
	if len(d.b) == 0 || d.b[0] > 1 {
		d.fail()
		return false
	}
	v := d.b[0] == 1
	d.b = d.b[1:]
	return v
}
