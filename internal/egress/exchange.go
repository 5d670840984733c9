package egress

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// exchange sends the request and relays its answer. The body goes up beside
// it, because an answer may come before the body has ended.
func (f *request) exchange(l *live, rest []byte) {
	up := bufio.NewWriterSize(counting{l.upstream, &l.up}, smallBuffer)
	_, err := up.Write(f.bytes())
	if err == nil && (f.upgrade || len(rest) == 0 || f.body.kind == bodyNone) {
		err = up.Flush() // else it goes with the first bytes of the body
	}
	if err != nil {
		l.cut()
		return
	}
	if f.upgrade {
		l.early = rest
		f.answerUpgrade(l)
		return
	}
	client := io.MultiReader(bytes.NewReader(rest), l.client)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := copyBody(up, bufio.NewReader(client), f.body); err != nil {
			// Half a request must not be taken for a whole one.
			f.broken.Store(errors.Is(err, errBody))
			reset(l.upstream)
			return
		}
		watch(l)
	})
	whole := f.answer(l, bufio.NewReader(l.upstream))
	if !whole {
		l.cut()
	}
	// An answer may come before the request has ended. What is left of the
	// body has a moment to get up, then both ends are closed.
	finish(l.client)
	_ = l.upstream.SetWriteDeadline(time.Now().Add(lingerTime))
	wg.Wait()
	_ = l.upstream.Close()
	_ = l.client.Close()
}

// watch notices a client that leaves while the answer is awaited: a reset ends
// the exchange, an end makes it subject to the shorter idle time. What else
// the client sends belongs to no request.
func watch(l *live) {
	var b [1]byte
	_, err := l.client.Read(b[:])
	var timeout net.Error
	switch {
	case err == nil, errors.As(err, &timeout) && timeout.Timeout():
	case errors.Is(err, io.EOF):
		l.half.Store(true)
	default:
		l.cut()
	}
}

// finish ends our side and gives the client a moment to read the end before
// unread bytes of it would turn the close into a reset.
func finish(s Stream) {
	_ = s.CloseWrite()
	_ = s.SetReadDeadline(time.Now().Add(lingerTime))
}

// answer relays interim answers and the final one, and reports whether it was
// whole. A wrong answer becomes 502 if none was begun.
func (f *request) answer(l *live, r *bufio.Reader) bool {
	down := bufio.NewWriterSize(counting{l.client, &l.down}, smallBuffer)
	for {
		h, err := readResponse(r)
		if f.broken.Load() {
			_, _ = down.Write(badRequest)
			return down.Flush() == nil
		}
		if err != nil {
			_, _ = down.Write(badGateway(f.intent))
			return down.Flush() == nil
		}
		if h.status == 101 {
			_, _ = down.Write(badGateway(f.intent)) // nobody asked
			return down.Flush() == nil
		}
		body, err := f.answerFraming(h)
		if err != nil {
			_, _ = down.Write(badGateway(f.intent))
			return down.Flush() == nil
		}
		final := h.status >= 200
		if _, err := down.Write(answerHead(h, final)); err != nil {
			return false
		}
		if !final {
			if down.Flush() != nil {
				return false
			}
			continue
		}
		return down.Flush() == nil && copyBody(down, r, body) == nil
	}
}

func badGateway(in Intent) []byte {
	d := &Denial{Code: codeUnreachable, Intent: in, Reason: "the destination gave no well-formed answer"}
	return d.response()
}

func readResponse(r *bufio.Reader) (*head, error) {
	raw, err := peekHead(r, maxResponseHead)
	if err != nil {
		return nil, err
	}
	return parseResponse(raw)
}

// peekHead takes exactly one head from r and leaves the rest in it.
func peekHead(r *bufio.Reader, limit int) ([]byte, error) {
	var raw []byte
	for {
		line, err := r.ReadSlice('\n')
		raw = append(raw, line...)
		if len(raw) > limit {
			return nil, errHeadSize
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return nil, err
		}
		n := len(raw)
		if n < 2 || raw[n-2] != '\r' {
			return nil, syntax("a line feed without carriage return")
		}
		if n == 2 {
			return nil, syntax("an empty line before the message")
		}
		if n >= 4 && raw[n-3] == '\n' {
			return raw, nil
		}
	}
}

// answerFraming applies RFC 9112, 6.3 to a response.
func (f *request) answerFraming(h *head) (framing, error) {
	body, err := h.framing()
	switch {
	case err != nil:
		return framing{}, err
	case f.head.method == "HEAD", h.status < 200, h.status == 204, h.status == 304:
		return framing{}, nil
	case body.kind == bodyNone:
		return framing{kind: bodyUntilClose}, nil
	case body.kind == bodyChunked && f.head.minor == '0':
		return framing{}, syntax("a chunked answer to HTTP/1.0")
	}
	return body, nil
}

// answerHead writes a response head for the client. The final one says that
// the connection ends.
func answerHead(h *head, final bool) []byte {
	b := fmt.Appendf(nil, "HTTP/1.%c %03d %s\r\n", h.minor, h.status, h.reason)
	drop, err := h.list("Connection")
	if err != nil {
		drop = nil
	}
	keep := func(name string) bool {
		switch name {
		case "connection", "proxy-connection", "keep-alive", "upgrade":
			return false
		case "content-length", "transfer-encoding":
			return true
		}
		return !slices.Contains(drop, name)
	}
	if final {
		return h.write(b, keep, field{"Connection", "close"})
	}
	return h.write(b, keep)
}

// answerUpgrade relays the answer to a WebSocket upgrade: after a 101 the
// connection is the program's, with the verdict that its host and port got.
func (f *request) answerUpgrade(l *live) {
	r := bufio.NewReader(l.upstream)
	h, err := readResponse(r)
	if err != nil || h.status != 101 || !slices.Contains(mustList(h, "Upgrade"), "websocket") {
		down := bufio.NewWriter(counting{l.client, &l.down})
		whole := false
		if err == nil && h.status >= 200 {
			if body, ferr := f.answerFraming(h); ferr == nil {
				_, _ = down.Write(answerHead(h, true))
				whole = copyBody(down, r, body) == nil
			}
		} else {
			_, _ = down.Write(badGateway(f.intent))
			whole = down.Flush() == nil
		}
		if !whole {
			l.cut()
		}
		_ = l.upstream.Close()
		finish(l.client)
		_, _ = io.CopyN(io.Discard, l.client, lingerBytes)
		_ = l.client.Close()
		return
	}
	b := fmt.Appendf(nil, "HTTP/1.1 101 %s\r\n", h.reason)
	b = h.write(b, func(name string) bool { return name != "connection" && name != "keep-alive" && name != "upgrade" },
		field{"Connection", "Upgrade"}, field{"Upgrade", "websocket"})
	early, _ := r.Peek(r.Buffered())
	if _, err := l.client.Write(append(b, early...)); err != nil {
		l.cut()
	}
	l.relay()
	_ = l.upstream.Close()
	_ = l.client.Close()
}

func mustList(h *head, name string) []string {
	out, err := h.list(name)
	if err != nil {
		return nil
	}
	return out
}

// counting adds what is written to a counter, for statistics and idleness.
type counting struct {
	net.Conn
	n *atomic.Uint64
}

func (c counting) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.n.Add(uint64(n))
	return n, err
}
