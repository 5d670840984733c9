package egress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// The head of an HTTP/1.1 message, read as strictly as RFC 9112 allows. What
// two parsers may read differently (bare LF, folded lines, a blank before the
// colon, repeated framing) is refused, never repaired.
type head struct {
	method, target string // of a request
	status         int    // of a response
	reason         string // of a response
	minor          byte   // HTTP/1.minor, '0' or '1'
	fields         []field
}

type field struct{ name, value string }

const (
	maxRequestHead  = 8192
	maxResponseHead = 16384
	maxFields       = 128
	maxMethod       = 32
)

var (
	errHeadSize = errors.New("the message head is too large")
	errSyntax   = errors.New("not a well-formed HTTP/1.1 message")
)

func syntax(what string) error { return fmt.Errorf("%w: %s", errSyntax, what) }

// readHead reads up to and including the empty line. It returns the bytes
// read beyond it. A line feed without carriage return fails at once, so that
// nobody waits for an end that will not come.
func readHead(r io.Reader, first []byte, limit int) (raw, rest []byte, err error) {
	buf := append(make([]byte, 0, 2048), first...)
	for checked := 0; ; {
		for ; checked < len(buf); checked++ {
			if buf[checked] != '\n' {
				continue
			}
			if checked == 0 || buf[checked-1] != '\r' {
				return nil, nil, syntax("a line feed without carriage return")
			}
			if checked+1 > limit {
				return nil, nil, errHeadSize
			}
			if checked >= 3 && buf[checked-2] == '\n' {
				return buf[:checked+1], buf[checked+1:], nil
			}
			if checked == 1 {
				return nil, nil, syntax("an empty line before the message")
			}
		}
		if len(buf) >= limit {
			return nil, nil, errHeadSize
		}
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, len(buf))
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if n == 0 && err != nil {
			return nil, nil, err
		}
	}
}

func parseRequest(raw []byte) (*head, error) {
	line, rest, _ := bytes.Cut(raw, []byte("\r\n"))
	parts := strings.Split(string(line), " ")
	if len(parts) != 3 {
		return nil, syntax("the request line")
	}
	h := &head{method: parts[0], target: parts[1]}
	if !isToken(h.method) || len(h.method) > maxMethod {
		return nil, syntax("the method")
	}
	for i := range len(h.target) {
		if c := h.target[i]; c <= ' ' || c >= 0x7f || c == '#' || c == '\\' || c == '"' || c == '<' || c == '>' {
			return nil, syntax("a character of the request target")
		}
	}
	if h.target == "" || !h.version(parts[2]) {
		return nil, syntax("the request line")
	}
	return h, h.parseFields(rest, true)
}

func parseResponse(raw []byte) (*head, error) {
	line, rest, _ := bytes.Cut(raw, []byte("\r\n"))
	version, tail, ok := strings.Cut(string(line), " ")
	h := &head{}
	if !ok || !h.version(version) || len(tail) < 3 || len(tail) > 3 && tail[3] != ' ' {
		return nil, syntax("the status line")
	}
	for _, c := range tail[:3] {
		if c < '0' || c > '9' {
			return nil, syntax("the status")
		}
		h.status = h.status*10 + int(c-'0')
	}
	if h.status < 100 {
		return nil, syntax("the status")
	}
	if len(tail) > 4 {
		h.reason = tail[4:]
	}
	if !isValue(h.reason) {
		return nil, syntax("the reason phrase")
	}
	return h, h.parseFields(rest, false)
}

func (h *head) version(s string) bool {
	if s != "HTTP/1.0" && s != "HTTP/1.1" {
		return false
	}
	h.minor = s[len(s)-1]
	return true
}

// parseFields reads the lines up to the empty one.
func (h *head) parseFields(rest []byte, request bool) error {
	for {
		line, tail, ok := bytes.Cut(rest, []byte("\r\n"))
		if !ok {
			return syntax("a field line without end")
		}
		if len(line) == 0 {
			if len(tail) != 0 {
				return syntax("bytes beyond the head")
			}
			return nil
		}
		f, err := parseField(line, request)
		if err != nil {
			return err
		}
		if h.fields = append(h.fields, f); len(h.fields) > maxFields {
			return errHeadSize
		}
		rest = tail
	}
}

func parseField(line []byte, request bool) (field, error) {
	name, value, ok := strings.Cut(string(line), ":")
	if !ok || !isToken(name) { // a folded line or a blank before the colon is no token
		return field{}, syntax("a field name")
	}
	value = strings.Trim(value, " \t")
	if !isValue(value) || request && !utf8.ValidString(value) {
		return field{}, syntax("a field value")
	}
	return field{name, value}, nil
}

// isToken reports whether s is a token of RFC 9110, 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 {
			continue
		}
		return false
	}
	return s != ""
}

// isValue reports whether s holds no control character but the tab.
func isValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// all returns the values of a field in order.
func (h *head) all(name string) []string {
	var out []string
	for _, f := range h.fields {
		if strings.EqualFold(f.name, name) {
			out = append(out, f.value)
		}
	}
	return out
}

// list returns the members of a comma-separated field in lower case. Every
// member must be a token.
func (h *head) list(name string) ([]string, error) {
	var out []string
	for _, v := range h.all(name) {
		for m := range strings.SplitSeq(v, ",") {
			if m = strings.Trim(m, " \t"); m == "" {
				continue
			}
			if !isToken(m) {
				return nil, syntax("a member of " + name)
			}
			out = append(out, strings.ToLower(m))
		}
	}
	return out, nil
}

// write appends the fields that keep admits, then the extra ones and the
// empty line.
func (h *head) write(b []byte, keep func(name string) bool, extra ...field) []byte {
	for _, f := range h.fields {
		if keep(strings.ToLower(f.name)) {
			b = appendField(b, f)
		}
	}
	for _, f := range extra {
		b = appendField(b, f)
	}
	return append(b, "\r\n"...)
}

func appendField(b []byte, f field) []byte {
	b = append(b, f.name...)
	b = append(b, ": "...)
	b = append(b, f.value...)
	return append(b, "\r\n"...)
}
