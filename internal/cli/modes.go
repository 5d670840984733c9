package cli

import (
	"io"
	"strings"
)

// modes passes terminal output on and remembers which modes a program has
// switched on, so that leaving it does not leave them on.
type modes struct {
	out  io.Writer
	tail string // the end of the last write: a sequence may be cut in two
	on   [len(resets)]bool
}

// resets are the modes that make a terminal unusable when they stay on.
var resets = [...]struct{ on, off, cure string }{
	{"\x1b[?1049h", "\x1b[?1049l", "\x1b[?1049l"}, // alternate screen
	{"\x1b[?47h", "\x1b[?47l", "\x1b[?47l"},
	{"\x1b[?1000h", "\x1b[?1000l", "\x1b[?1000l"}, // mouse
	{"\x1b[?1002h", "\x1b[?1002l", "\x1b[?1002l"},
	{"\x1b[?1003h", "\x1b[?1003l", "\x1b[?1003l"},
	{"\x1b[?1006h", "\x1b[?1006l", "\x1b[?1006l"},
	{"\x1b[?1004h", "\x1b[?1004l", "\x1b[?1004l"}, // focus
	{"\x1b[?2004h", "\x1b[?2004l", "\x1b[?2004l"}, // bracketed paste
	{"\x1b[?1h", "\x1b[?1l", "\x1b[?1l"},          // application cursor keys
	{"\x1b[?25l", "\x1b[?25h", "\x1b[?25h"},       // cursor hidden
	{"\x1b[>", "\x1b[<u", "\x1b[<u"},              // Kitty keyboard, pushed and popped
}

const modeTail = 16

// Write passes p on.
func (m *modes) Write(p []byte) (int, error) {
	n, err := m.out.Write(p)
	text := m.tail + string(p)
	for i, r := range resets {
		on, off := lastSwitch(text, r.on), strings.LastIndex(text, r.off)
		if on >= 0 || off >= 0 {
			m.on[i] = on > off
		}
	}
	m.tail = text[max(0, len(text)-modeTail):]
	return n, err
}

// lastSwitch finds the last sequence that switches a mode on. The keyboard
// protocol has a number between its start and its end.
func lastSwitch(text, on string) int {
	if on != "\x1b[>" {
		return strings.LastIndex(text, on)
	}
	for at := strings.LastIndex(text, on); at >= 0; at = strings.LastIndex(text[:at], on) {
		rest := strings.TrimLeft(text[at+len(on):], "0123456789")
		if strings.HasPrefix(rest, "u") {
			return at
		}
	}
	return -1
}

// restore switches off what is still on.
func (m *modes) restore() {
	for i, r := range resets {
		if m.on[i] {
			_, _ = io.WriteString(m.out, r.cure)
			m.on[i] = false
		}
	}
}
