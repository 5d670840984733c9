package wire

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// all is one full message of every type.
var all = []Message{
	&Plan{Hostname: "box", Mounts: []byte{1, 2}, Dir: "/w",
		Confine: Confine{ReadOnly: []string{"/usr", "/etc"}, ReadWrite: []string{"/tmp"}, Hard: true, MustFail: []string{"/x"}, MustOpen: []string{"/w"}}},
	&Spawn{Argv: []string{"sh", "-c", "true"}, Env: []string{"A=b", "C="}, Dir: "/w", TTY: true, Rows: 24, Cols: 80},
	&Signal{Number: 15, Group: true},
	&Owner{Inode: 1 << 40, Hints: []int{2, 3}},
	&OpenExe{PID: 7, Start: 99},
	&Dial{Port: 65535},
	&Freeze{Thaw: true},
	&Renew{},
	&Sockets{Device: "bridge", Present: 0x3ff, Notes: []string{"n"}},
	&Ready{Phases: []Phase{{"mounts", 12}}, Checks: []Check{{"a", "b", "c", true}}, Skipped: []string{"/x"}, ABI: 7},
	&Spawned{PID: 5, Errno: 2, Step: "command"},
	&Exited{Code: 137, Signal: 9},
	&Owners{Holders: [][]Process{{{PID: 5, PPID: 1, Start: 8, Exe: "/usr/bin/curl", Dev: 1, Inode: 2, Size: -1, Mtime: -5, Ctime: 6, Deleted: true}}, nil}},
	&Opened{Errno: 111},
	&Done{OK: true, Detail: "2ms"},
	&Failed{Step: "mounts", Text: "no", Errno: 1},
}

// blank returns an empty message of the same type.
func blank(m Message) Message {
	switch m.(type) {
	case *Plan:
		return &Plan{}
	case *Spawn:
		return &Spawn{}
	case *Signal:
		return &Signal{}
	case *Owner:
		return &Owner{}
	case *OpenExe:
		return &OpenExe{}
	case *Dial:
		return &Dial{}
	case *Renew:
		return &Renew{}
	case *Freeze:
		return &Freeze{}
	case *Sockets:
		return &Sockets{}
	case *Ready:
		return &Ready{}
	case *Spawned:
		return &Spawned{}
	case *Exited:
		return &Exited{}
	case *Owners:
		return &Owners{}
	case *Opened:
		return &Opened{}
	case *Done:
		return &Done{}
	case *Failed:
		return &Failed{}
	}
	panic("a message without a blank")
}

func TestEveryMessageSurvivesTheSocket(t *testing.T) {
	a, b := pair(t)
	for i, m := range all {
		if err := a.Send(uint32(i), m); err != nil {
			t.Fatal(err)
		}
		f, err := b.Receive()
		if err != nil {
			t.Fatal(err)
		}
		got := blank(m)
		if err := f.Unmarshal(got); err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if f.ID != uint32(i) {
			t.Errorf("%T: id %d, want %d", m, f.ID, i)
		}
		if diff := cmp.Diff(m, got); diff != "" {
			t.Errorf("%T: %s", m, diff)
		}
	}
}

func TestDescriptorsStayWithTheirFrame(t *testing.T) {
	a, b := pair(t)
	one, two := pipeWith(t, "one"), pipeWith(t, "two")
	big := &Spawn{Argv: []string{"x"}, Env: []string{"A=" + string(bytes.Repeat([]byte("y"), 300<<10))}}
	sent := make(chan struct{})
	go func() { // larger than the socket's buffer: the reader must run beside
		defer close(sent)
		_ = a.Send(1, big, int(one.Fd()))
		_ = a.Send(2, &Freeze{})
		_ = a.Send(3, &Freeze{}, int(two.Fd()))
	}()
	var got []string
	for range 3 {
		f, err := b.Receive()
		if err != nil {
			t.Fatal(err)
		}
		word := ""
		for _, fd := range f.FDs {
			file := os.NewFile(uintptr(fd), "received")
			data, _ := io.ReadAll(file)
			word += string(data)
			if flags, _ := unix.FcntlInt(file.Fd(), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
				t.Error("a received descriptor survives exec")
			}
			file.Close()
		}
		got = append(got, word)
	}
	<-sent
	if diff := cmp.Diff([]string{"one", "", "two"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestTheEndIsSeen(t *testing.T) {
	a, b := pair(t)
	a.Close()
	if _, err := b.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("Receive = %v, want EOF", err)
	}
}

func TestFramesThatBreakTheTableAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name string
		raw  []byte
	}{
		{"too short", []byte{1, 0, 0, 0, 1}},
		{"too long", []byte{255, 255, 255, 255, 1, 0, 0, 0, 0, 0}},
		{"descriptors announced and missing", []byte{6, 0, 0, 0, byte(TypeFreeze), 1, 0, 0, 0, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := pair(t)
			if _, err := a.file.Write(tt.raw); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Receive(); !errors.Is(err, ErrMalformed) {
				t.Errorf("Receive = %v, want ErrMalformed", err)
			}
		})
	}
}

// FuzzUnmarshal checks that no payload panics, and that what is accepted is
// written back as a payload that means the same.
func FuzzUnmarshal(f *testing.F) {
	for _, m := range all {
		f.Add(byte(m.Type()), Marshal(m))
	}
	f.Fuzz(func(t *testing.T, typ byte, payload []byte) {
		for _, m := range all {
			if byte(m.Type()) != typ {
				continue
			}
			got := blank(m)
			if (Frame{Type: Type(typ), Payload: payload}).Unmarshal(got) != nil {
				return
			}
			again := blank(m)
			if err := (Frame{Type: Type(typ), Payload: Marshal(got)}).Unmarshal(again); err != nil {
				t.Fatalf("own output refused: %v", err)
			}
			if diff := cmp.Diff(got, again); diff != "" {
				t.Error(diff)
			}
		}
	})
}

func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	a, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if b, err = New(fd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close(); a.Release(); b.Release() })
	return a, b
}

func pipeWith(t *testing.T, text string) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString(text); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() { r.Close() })
	return r
}
