package egress

import (
	"bytes"
	"io"
	"time"
)

// How a denied connection is ended: as clearly as its protocol allows, and
// never by letting it wait. A TLS client is told access_denied, an HTTP client
// gets the reason, everybody else a reset.

// alertAccessDenied is a fatal TLS alert (RFC 8446, 6.2), number 49, in a
// plaintext record.
var alertAccessDenied = []byte{21, 3, 3, 0, 2, 2, 49}

// silentPorts belong to protocols whose server speaks first, or whose client
// would take our answer for the server's: reset at once.
var silentPorts = map[uint16]bool{21: true, 22: true, 25: true, 110: true, 143: true, 587: true}

// httpMethods are matched whole: an SSH banner begins with capitals too.
var httpMethods = [][]byte{
	[]byte("GET "), []byte("POST "), []byte("HEAD "), []byte("PUT "), []byte("DELETE "),
	[]byte("OPTIONS "), []byte("PATCH "), []byte("TRACE "), []byte("CONNECT "), []byte("PRI * HTTP/2.0"),
	[]byte("PROPFIND "), []byte("MKCOL "), []byte("REPORT "), []byte("QUERY "),
}

// refuseRaw ends a transparently caught connection that was denied.
func (p *Proxy) refuseRaw(s Stream, d *Denial) {
	if silentPorts[d.Intent.Port] {
		reset(s)
		return
	}
	switch p.peek(s) {
	case speaksTLS:
		p.answer(s, alertAccessDenied)
	case speaksHTTP:
		p.answer(s, d.response())
	default:
		reset(s)
	}
}

type spoken uint8

const (
	speaksUnknown spoken = iota
	speaksTLS
	speaksHTTP
)

// peek reads what the client says first, within the peek time, only as far as
// it takes to know its protocol.
func (p *Proxy) peek(s Stream) spoken {
	if s.SetReadDeadline(time.Now().Add(p.limits.Peek)) != nil {
		return speaksUnknown
	}
	var buf [32]byte
	n := 0
	for n < len(buf) {
		m, err := s.Read(buf[n:])
		n += m
		if kind, sure := recognise(buf[:n]); sure {
			return kind
		}
		if err != nil {
			break
		}
	}
	return speaksUnknown
}

// recognise names the protocol that begins with b; sure is false while more
// bytes could still decide.
func recognise(b []byte) (kind spoken, sure bool) {
	if len(b) == 0 {
		return speaksUnknown, false
	}
	if b[0] == 22 { // a TLS record of type handshake, version 3.x
		if len(b) < 3 {
			return speaksUnknown, false
		}
		if b[1] == 3 && b[2] <= 4 {
			return speaksTLS, true
		}
		return speaksUnknown, true
	}
	for _, m := range httpMethods {
		if bytes.HasPrefix(b, m) {
			return speaksHTTP, true
		}
		if bytes.HasPrefix(m, b) {
			return speaksUnknown, false
		}
	}
	return speaksUnknown, true
}

const (
	lingerBytes = 256 << 10
	lingerTime  = 250 * time.Millisecond
)

// answer sends b as the last words and closes. What the client still sends is
// read for a moment: closing with unread bytes would reset the connection and
// take the answer away before it is read.
func (p *Proxy) answer(s Stream, b []byte) {
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(p.limits.Peek + lingerTime))
	if _, err := s.Write(b); err != nil {
		return
	}
	if s.CloseWrite() != nil {
		return
	}
	_ = s.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, s, lingerBytes)
}
