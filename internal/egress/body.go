package egress

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// framing says how long the body of a message is.
type framing struct {
	kind   bodyKind
	length int64 // of bodyLength
}

type bodyKind uint8

const (
	bodyNone bodyKind = iota
	bodyLength
	bodyChunked
	bodyUntilClose // responses only
)

const (
	maxChunkLine = 256
	maxTrailers  = 4096
)

// framing reads Content-Length and Transfer-Encoding. One coding, chunked,
// under HTTP/1.1, or one length in digits; never both, never twice.
func (h *head) framing() (framing, error) {
	te, cl := h.all("Transfer-Encoding"), h.all("Content-Length")
	switch {
	case len(te) > 0 && len(cl) > 0:
		return framing{}, syntax("both Transfer-Encoding and Content-Length")
	case len(te) > 1 || len(cl) > 1:
		return framing{}, syntax("a framing field twice")
	case len(te) == 1:
		if !strings.EqualFold(te[0], "chunked") || h.minor != '1' {
			return framing{}, syntax("a transfer coding other than chunked")
		}
		return framing{kind: bodyChunked}, nil
	case len(cl) == 1:
		if cl[0] == "" || len(cl[0]) > 18 || strings.Trim(cl[0], "0123456789") != "" {
			return framing{}, syntax("Content-Length")
		}
		n, err := strconv.ParseInt(cl[0], 10, 64)
		if err != nil {
			return framing{}, syntax("Content-Length")
		}
		return framing{kind: bodyLength, length: n}, nil
	}
	return framing{}, nil
}

// errBody says that a body is not framed as its head promised.
var errBody = errors.New("the message body is not well-formed")

// copyBody moves exactly one body from r to w, written again from what was
// parsed, and flushes after every piece: an event stream must not wait.
func copyBody(w *bufio.Writer, r *bufio.Reader, f framing) error {
	switch f.kind {
	case bodyNone:
		return w.Flush()
	case bodyLength:
		if err := copyPieces(w, r, f.length); err != nil {
			return err
		}
	case bodyChunked:
		return copyChunks(w, r)
	case bodyUntilClose:
		for {
			err := copyPieces(w, r, 1<<20)
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
	return w.Flush()
}

// copyPieces moves n bytes as they come.
func copyPieces(w *bufio.Writer, r *bufio.Reader, n int64) error {
	for n > 0 {
		if r.Buffered() == 0 {
			if _, err := r.Peek(1); err != nil {
				if errors.Is(err, io.EOF) {
					return io.ErrUnexpectedEOF
				}
				return err
			}
		}
		m := min(n, int64(r.Buffered()))
		piece, err := r.Peek(int(m))
		if err != nil {
			return err
		}
		if _, err := w.Write(piece); err != nil {
			return err
		}
		if err := w.Flush(); err != nil {
			return err
		}
		_, _ = r.Discard(int(m))
		n -= m
	}
	return nil
}

func copyChunks(w *bufio.Writer, r *bufio.Reader) error {
	for {
		line, err := chunkLine(r)
		if err != nil {
			return err
		}
		size, _, _ := strings.Cut(line, ";") // extensions are dropped
		n, err := parseChunkSize(size)
		if err != nil {
			return err
		}
		if n == 0 {
			return copyTrailers(w, r)
		}
		if _, err := fmt.Fprintf(w, "%x\r\n", n); err != nil {
			return err
		}
		if err := copyPieces(w, r, n); err != nil {
			return err
		}
		var end [2]byte
		if _, err := io.ReadFull(r, end[:]); err != nil {
			return err
		}
		if end != [2]byte{'\r', '\n'} {
			return errBody
		}
		if _, err := w.Write(end[:]); err != nil {
			return err
		}
		if r.Buffered() == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
}

func parseChunkSize(s string) (int64, error) {
	if s == "" || len(s) > 15 {
		return 0, errBody
	}
	n := int64(0)
	for _, c := range []byte(s) {
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | int64(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			n = n<<4 | int64(c|0x20-'a'+10)
		default:
			return 0, errBody
		}
	}
	return n, nil
}

// chunkLine reads one line ended by CRLF, without control characters.
func chunkLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, bufio.ErrBufferFull) {
			return "", errBody
		}
		if errors.Is(err, io.EOF) {
			return "", io.ErrUnexpectedEOF
		}
		return "", err
	}
	if len(line) > maxChunkLine || len(line) < 2 || line[len(line)-2] != '\r' {
		return "", errBody
	}
	s := string(line[:len(line)-2])
	if !isValue(s) {
		return "", errBody
	}
	return s, nil
}

// framingFields may not stand in a trailer (RFC 9110, 6.5.1).
var framingFields = []string{"content-length", "transfer-encoding", "host", "connection", "trailer", "te", "upgrade"}

func copyTrailers(w *bufio.Writer, r *bufio.Reader) error {
	if _, err := w.WriteString("0\r\n"); err != nil {
		return err
	}
	for total := 0; ; {
		line, err := r.ReadSlice('\n')
		if err != nil || len(line) < 2 || line[len(line)-2] != '\r' {
			return errBody
		}
		if total += len(line); total > maxTrailers {
			return errBody
		}
		if len(line) == 2 {
			_, _ = w.WriteString("\r\n")
			return w.Flush()
		}
		f, err := parseField(line[:len(line)-2], false)
		if err != nil {
			return errBody
		}
		if !slices.Contains(framingFields, strings.ToLower(f.name)) {
			if _, err := w.Write(appendField(nil, f)); err != nil {
				return err
			}
		}
	}
}
