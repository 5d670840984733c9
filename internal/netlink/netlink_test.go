package netlink

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhatIsPackedIsRead(t *testing.T) {
	var b Batch
	b.Message(16, unix.NLM_F_ACK, 7)
	b.Raw(1, 2, 3)
	b.AttrString(3, "eth0")
	n := b.Nest(18 | unix.NLA_F_NESTED)
	b.AttrUint32(1, 0x01020304)
	b.Close(n)
	b.Message(17, 0, 8)
	got := b.Bytes()

	m, rest, ok, err := Next(got)
	if err != nil || !ok || m.Type != 16 || m.Seq != 7 || m.Flags != unix.NLM_F_ACK|unix.NLM_F_REQUEST {
		t.Fatalf("first message = %+v, %v, %v", m, ok, err)
	}
	if !bytes.Equal(m.Data[:4], []byte{1, 2, 3, 0}) {
		t.Errorf("raw bytes = %v, want padded to four", m.Data[:4])
	}
	typ, data, attrs, ok, err := NextAttr(m.Data[4:])
	if err != nil || !ok || typ != 3 || string(data) != "eth0\x00" {
		t.Errorf("first attribute = %d %q %v %v", typ, data, ok, err)
	}
	typ, data, attrs, ok, err = NextAttr(attrs)
	if err != nil || !ok || typ != 18 || len(data) != 8 || len(attrs) != 0 {
		t.Errorf("nested attribute = %d %v %v %v", typ, data, ok, err)
	}
	if m, rest, ok, err = Next(rest); err != nil || !ok || m.Type != 17 || len(m.Data) != 0 {
		t.Errorf("second message = %+v, %v, %v", m, ok, err)
	}
	if _, _, ok, err = Next(rest); ok || err != nil {
		t.Errorf("at the end: %v, %v, want no message and no error", ok, err)
	}
}

func TestMalformedMessages(t *testing.T) {
	for name, b := range map[string][]byte{
		"short header":          {1, 2, 3},
		"length beyond the end": {17, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"length below header":   {15, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		if _, _, ok, err := Next(b); ok || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: ok %v, err %v", name, ok, err)
		}
	}
}

func TestErrnoIsOnlyReadFromAnswers(t *testing.T) {
	eperm := []byte{0xff, 0xff, 0xff, 0xff} // -1
	for _, tt := range []struct {
		name string
		m    Message
		want error
		ends bool
	}{
		{"acknowledged", Message{Type: unix.NLMSG_ERROR, Data: make([]byte, 4)}, nil, true},
		{"refused", Message{Type: unix.NLMSG_ERROR, Data: eperm}, unix.EPERM, true},
		{"dump refused", Message{Type: unix.NLMSG_DONE, Data: eperm}, unix.EPERM, true},
		{"cut short", Message{Type: unix.NLMSG_ERROR, Data: eperm[:2]}, unix.EBADMSG, true},
		{"positive", Message{Type: unix.NLMSG_ERROR, Data: []byte{1, 0, 0, 0}}, unix.EBADMSG, true},
		{"another message", Message{Type: 16, Data: eperm}, nil, false},
	} {
		errno, ends := tt.m.Errno()
		if ends != tt.ends || (errno == 0) != (tt.want == nil) || (tt.want != nil && errno != tt.want) {
			t.Errorf("%s: %v, %v", tt.name, errno, ends)
		}
	}
}

// The pieces that Next and NextAttr return lie inside the input, in order, and
// reading always comes to an end.
func FuzzNext(f *testing.F) {
	var b Batch
	b.Message(16, 0, 1)
	b.AttrUint32(1, 2)
	f.Add(b.Bytes())
	f.Add([]byte{17, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		total := 0
		for rest := in; ; {
			m, r, ok, err := Next(rest)
			if err != nil || !ok {
				break
			}
			if len(r) >= len(rest) {
				t.Fatal("no progress")
			}
			total += HeaderLen + len(m.Data)
			rest = r
			m.Errno()
			for attrs := m.Data; ; {
				_, _, a, ok, err := NextAttr(attrs)
				if err != nil || !ok {
					break
				}
				if len(a) >= len(attrs) {
					t.Fatal("no progress in attributes")
				}
				attrs = a
			}
		}
		if total > len(in) {
			t.Fatalf("%d bytes read from %d", total, len(in))
		}
	})
}
