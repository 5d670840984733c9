package relay_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"openshell.dev/openshell/internal/relay"
)

type buffer struct{ bytes.Buffer }

func (*buffer) Close() error { return nil }

func TestFramesComeBack(t *testing.T) {
	b := &buffer{}
	c := relay.New(b)
	big := bytes.Repeat([]byte("x"), relay.MaxData*2+7)
	for _, err := range []error{
		c.SendJSON(relay.TypeStart, relay.Start{Kind: relay.KindExec, Argv: []string{"a", "b"}}),
		c.SendData(relay.TypeInput, big),
		c.SendResize(24, 80),
		c.Send(relay.TypeInputEnd, nil),
		c.SendJSON(relay.TypeExit, relay.Exit{Code: 7}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var got []relay.Type
	var data []byte
	for {
		f, err := c.Receive()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, f.Type)
		switch f.Type {
		case relay.TypeInput:
			data = append(data, f.Payload...)
		case relay.TypeStart:
			var s relay.Start
			if err := f.Decode(&s); err != nil || !slices.Equal(s.Argv, []string{"a", "b"}) {
				t.Errorf("start = %+v, %v", s, err)
			}
		case relay.TypeResize:
			if rows, cols := f.Size(); rows != 24 || cols != 80 {
				t.Errorf("size = %d, %d", rows, cols)
			}
		}
	}
	want := []relay.Type{relay.TypeStart, relay.TypeInput, relay.TypeInput, relay.TypeInput, relay.TypeResize, relay.TypeInputEnd, relay.TypeExit}
	if !slices.Equal(got, want) || !bytes.Equal(data, big) {
		t.Errorf("frames %v, %d bytes", got, len(data))
	}
}

func TestWhatIsRefused(t *testing.T) {
	for name, raw := range map[string][]byte{
		"unknown type":     {0, 0, 0, 0, 0},
		"type of tomorrow": {99, 0, 0, 0, 0},
		"too long":         {byte(relay.TypeInput), 0xff, 0xff, 0xff, 0xff},
		"end with payload": {byte(relay.TypeInputEnd), 0, 0, 0, 1, 1},
		"half a size":      {byte(relay.TypeResize), 0, 0, 0, 2, 1, 1},
		"cut in the head":  {byte(relay.TypeInput), 0},
		"cut in the body":  {byte(relay.TypeInput), 0, 0, 0, 9, 1},
	} {
		b := &buffer{}
		b.Write(raw)
		if _, err := relay.New(b).Receive(); !errors.Is(err, relay.ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
	if err := relay.New(&buffer{}).Send(relay.TypeInput, make([]byte, relay.MaxData+1)); err == nil {
		t.Error("an oversized frame was sent")
	}
}

// FuzzReceive: whatever is accepted is written back as the same bytes.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{byte(relay.TypeInput), 0, 0, 0, 1, 'x', byte(relay.TypeInputEnd), 0, 0, 0, 0})
	f.Add([]byte{byte(relay.TypeStart), 0, 0, 0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, raw []byte) {
		in, out := &buffer{}, &buffer{}
		in.Write(raw)
		r, w := relay.New(in), relay.New(out)
		for {
			frame, err := r.Receive()
			if err != nil {
				break
			}
			if err := w.Send(frame.Type, frame.Payload); err != nil {
				t.Fatalf("received %d bytes of type %d, cannot send them: %v", len(frame.Payload), frame.Type, err)
			}
		}
		if !bytes.HasPrefix(raw, out.Bytes()) {
			t.Errorf("%x became %x", raw, out.Bytes())
		}
	})
}

func TestAMessageStreamIsAByteStream(t *testing.T) {
	in := [][]byte{[]byte("ab"), nil, []byte("cde")}
	var out bytes.Buffer
	ends := 0
	s := relay.Stream(func() ([]byte, error) {
		if len(in) == 0 {
			return nil, io.EOF
		}
		m := in[0]
		in = in[1:]
		return m, nil
	}, func(p []byte) error { out.Write(p); return nil }, func() error { ends++; return nil })
	got, err := io.ReadAll(s)
	if err != nil || string(got) != "abcde" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := s.Write(bytes.Repeat([]byte("z"), 600<<10)); err != nil || out.Len() != 600<<10 {
		t.Errorf("wrote %d, %v", out.Len(), err)
	}
	_, _ = s.Close(), s.Close()
	if ends != 1 {
		t.Errorf("ended %d times", ends)
	}
}
