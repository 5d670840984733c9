package cli

import (
	"bytes"
	"strconv"
	"strings"

	"openshell.dev/openshell/internal/brand"
)

// detacher finds the keys that leave an attachment in what is typed. It
// understands plain control bytes and the CSI-u form that terminals with the
// Kitty keyboard protocol send instead.
type detacher struct {
	sequences [][]byte // each a row of control letters, 'a' to 'z'
	seen      []byte   // letters of a sequence that has begun
	held      []byte   // the bytes of those keys, withheld until it is decided
}

// newDetacher reads the configured keys: "ctrl-p,ctrl-q" and "ctrl-d" are the
// contract's. Several sequences are separated by spaces.
func newDetacher(words string) *detacher {
	if words == "" {
		words = "ctrl-p,ctrl-q ctrl-d"
	}
	d := &detacher{}
	for word := range strings.FieldsSeq(words) {
		var seq []byte
		for key := range strings.SplitSeq(word, ",") {
			letter, ok := strings.CutPrefix(strings.ToLower(key), "ctrl-")
			if !ok || len(letter) != 1 || letter[0] < 'a' || letter[0] > 'z' {
				seq = nil
				break
			}
			seq = append(seq, letter[0])
		}
		if seq != nil {
			d.sequences = append(d.sequences, seq)
		}
	}
	return d
}

// detachKeys are the keys of this account.
func detachKeys() string { return envOr("DETACH_KEYS", "") }

// describe names the keys for a person.
func (d *detacher) describe() string {
	if len(d.sequences) == 0 {
		return "no keys detach (" + brand.Env("DETACH_KEYS") + ")"
	}
	var names []string
	for _, c := range d.sequences[0] {
		names = append(names, "Ctrl-"+strings.ToUpper(string(c)))
	}
	return strings.Join(names, " ") + " detaches"
}

// feed takes what was typed and returns what is to be passed on, and whether
// the keys to leave were among it.
func (d *detacher) feed(in []byte) (out []byte, detach bool) {
	for len(in) > 0 {
		n, letter := controlKey(in)
		key := in[:n]
		in = in[n:]
		if letter == 0 {
			out = append(append(out, d.held...), key...)
			d.seen, d.held = nil, nil
			continue
		}
		d.seen, d.held = append(d.seen, letter), append(d.held, key...)
		switch d.state() {
		case whole:
			d.seen, d.held = nil, nil
			return out, true
		case none:
			// The key may begin another sequence.
			out = append(out, d.held[:len(d.held)-n]...)
			d.seen, d.held = []byte{letter}, append([]byte(nil), key...)
			switch d.state() {
			case whole:
				d.seen, d.held = nil, nil
				return out, true
			case none:
				out = append(out, key...)
				d.seen, d.held = nil, nil
			}
		}
	}
	return out, false
}

type match int

const (
	none match = iota
	part
	whole
)

func (d *detacher) state() match {
	best := none
	for _, s := range d.sequences {
		if bytes.Equal(s, d.seen) {
			return whole
		}
		if bytes.HasPrefix(s, d.seen) {
			best = part
		}
	}
	return best
}

// controlKey reads the first key of in: its length, and the letter if it is
// Ctrl with a letter, else 0.
func controlKey(in []byte) (n int, letter byte) {
	if c := in[0]; c >= 1 && c <= 26 && c != '\t' && c != '\r' && c != '\n' {
		return 1, c + 'a' - 1
	}
	if len(in) < 6 || in[0] != 0x1b || in[1] != '[' {
		return 1, 0
	}
	end := bytes.IndexByte(in[:min(len(in), 24)], 'u')
	if end < 0 {
		return 1, 0
	}
	code, mods, _ := strings.Cut(string(in[2:end]), ";")
	code, _, _ = strings.Cut(code, ":")
	mods, event, _ := strings.Cut(mods, ":")
	event, _, _ = strings.Cut(event, ";")
	key, err1 := strconv.Atoi(code)
	mod, err2 := strconv.Atoi(mods)
	if err1 != nil || err2 != nil || key < 'a' || key > 'z' {
		return 1, 0
	}
	// 1 + bits: 4 is Ctrl; 64 and 128 are Caps Lock and Num Lock.
	if (mod-1)&^(64|128) != 4 || event == "3" { // 3: released
		return 1, 0
	}
	return end + 1, byte(key)
}
