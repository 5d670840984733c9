package egress

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	dnsStreamIdle = 10 * time.Second
	dnsPerStream  = 256
)

// answerPackets answers DNS over UDP until the socket is closed. Questions
// are answered in turn: an answer is a look into a table, nobody is asked.
func answerPackets(ctx context.Context, c *net.UDPConn, h Handler) error {
	buf := make([]byte, maxQuery+1)
	for failed := 0; ; {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			if failed++; failed >= 100 {
				return fmt.Errorf("receive DNS questions on %s: %w", c.LocalAddr(), err)
			}
			continue
		}
		failed = 0
		if answer := h.Question(buf[:n], maxUDPSize); answer != nil {
			_, _ = c.WriteToUDPAddrPort(answer, from) // the client asks again
		}
	}
}

// answerStream answers DNS over one TCP connection (RFC 7766), closed when
// ctx ends.
func answerStream(ctx context.Context, c *net.TCPConn, h Handler) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	var size [2]byte
	buf := make([]byte, 0, minUDPSize)
	for range dnsPerStream {
		if c.SetDeadline(time.Now().Add(dnsStreamIdle)) != nil {
			return
		}
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(size[:]))
		if n > maxQuery {
			return
		}
		if cap(buf) < n {
			buf = make([]byte, n)
		}
		if _, err := io.ReadFull(c, buf[:n]); err != nil {
			return
		}
		answer := h.Question(buf[:n], 65535)
		if answer == nil {
			return
		}
		out := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(answer)), uint16(len(answer)))
		if _, err := c.Write(append(out, answer...)); err != nil {
			return
		}
	}
}
