// Package netlink builds and reads netlink messages by hand.
//
// It owns the byte layout (headers, attributes, nesting, acknowledgements) and
// one synchronous exchange with the kernel; it knows no family's meaning. The
// kernel is the only peer, yet every reader is bounded and never panics,
// because a descriptor may have been handed over. It is small enough for the
// inside half; the kernel leaves (netns, sockdiag) may use it.
package netlink

import (
	"encoding/binary"
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sizes of the fixed parts.
const (
	HeaderLen = unix.SizeofNlMsghdr
	attrLen   = unix.SizeofNlAttr
)

// ErrMalformed is returned for bytes that are no netlink message or attribute.
var ErrMalformed = errors.New("malformed netlink data")

// Batch is a growing run of messages. The zero value is empty and ready.
type Batch struct {
	buf   []byte
	start int // of the message being built
	open  bool
}

// Message ends the previous message and begins one. Request is always set.
func (b *Batch) Message(typ, flags uint16, seq uint32) {
	b.end()
	b.start, b.open = len(b.buf), true
	b.buf = binary.NativeEndian.AppendUint32(b.buf, 0) // length, set by end
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, flags|unix.NLM_F_REQUEST)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, seq)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, 0) // port: the kernel fills it in
}

// Raw appends bytes, such as a family's fixed header, padded to four.
func (b *Batch) Raw(data ...byte) {
	b.buf = append(b.buf, data...)
	b.pad()
}

// Attr appends an attribute with the given content.
func (b *Batch) Attr(typ uint16, data ...byte) {
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(attrLen+len(data)))
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
	b.Raw(data...)
}

// AttrUint32 appends an attribute holding a number in host order.
func (b *Batch) AttrUint32(typ uint16, v uint32) {
	var data [4]byte
	binary.NativeEndian.PutUint32(data[:], v)
	b.Attr(typ, data[:]...)
}

// AttrString appends an attribute holding a NUL-terminated string.
func (b *Batch) AttrString(typ uint16, s string) {
	b.Attr(typ, append([]byte(s), 0)...)
}

// Nest begins an attribute that holds what is appended until Close.
func (b *Batch) Nest(typ uint16) (mark int) {
	mark = len(b.buf)
	b.buf = append(b.buf, 0, 0)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
	return mark
}

// Close ends the nested attribute that Nest began.
func (b *Batch) Close(mark int) {
	binary.NativeEndian.PutUint16(b.buf[mark:], uint16(len(b.buf)-mark))
}

// Bytes ends the last message and returns the batch, valid until the next call.
func (b *Batch) Bytes() []byte {
	b.end()
	return b.buf
}

func (b *Batch) pad() {
	for len(b.buf)%4 != 0 {
		b.buf = append(b.buf, 0)
	}
}

func (b *Batch) end() {
	if b.open {
		binary.NativeEndian.PutUint32(b.buf[b.start:], uint32(len(b.buf)-b.start))
		b.open = false
	}
}

// Message is one received message. Data aliases the receive buffer.
type Message struct {
	Type, Flags uint16
	Seq         uint32
	Data        []byte
}

// Next splits the first message off b. At the end it returns ok false and no error.
func Next(b []byte) (m Message, rest []byte, ok bool, err error) {
	if len(b) == 0 {
		return Message{}, nil, false, nil
	}
	if len(b) < HeaderLen {
		return Message{}, nil, false, ErrMalformed
	}
	n := uint64(binary.NativeEndian.Uint32(b))
	if n < HeaderLen || n > uint64(len(b)) {
		return Message{}, nil, false, ErrMalformed
	}
	m = Message{
		Type:  binary.NativeEndian.Uint16(b[4:]),
		Flags: binary.NativeEndian.Uint16(b[6:]),
		Seq:   binary.NativeEndian.Uint32(b[8:]),
		Data:  b[HeaderLen:n],
	}
	return m, b[min(align(int(n)), len(b)):], true, nil
}

// Errno reads a message that ends an answer: an error, an acknowledgement or
// the end of a dump (errno 0 means it went well). ends is false for any other.
func (m Message) Errno() (errno syscall.Errno, ends bool) {
	if m.Type != unix.NLMSG_ERROR && m.Type != unix.NLMSG_DONE {
		return 0, false
	}
	if len(m.Data) < 4 {
		return unix.EBADMSG, true
	}
	code := int32(binary.NativeEndian.Uint32(m.Data))
	if code > 0 || code < -4095 {
		return unix.EBADMSG, true
	}
	return syscall.Errno(-code), true
}

// NextAttr splits the first attribute off b, without the nested and byte order
// marks in its type. At the end it returns ok false and no error.
func NextAttr(b []byte) (typ uint16, data, rest []byte, ok bool, err error) {
	if len(b) == 0 {
		return 0, nil, nil, false, nil
	}
	if len(b) < attrLen {
		return 0, nil, nil, false, ErrMalformed
	}
	n := int(binary.NativeEndian.Uint16(b))
	if n < attrLen || n > len(b) {
		return 0, nil, nil, false, ErrMalformed
	}
	typ = binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	return typ, b[attrLen:n], b[min(align(n), len(b)):], true, nil
}

func align(n int) int { return (n + 3) &^ 3 }
