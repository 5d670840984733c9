package session

import (
	"context"
	"io"
	"strings"
	"testing"
)

// script is a process whose output is given.
type script struct {
	out, errs io.ReadCloser
	in        strings.Builder
}

func (s *script) PID() int                           { return 7 }
func (s *script) Stdin() io.WriteCloser              { return nopCloser{&s.in} }
func (s *script) Stdout() io.ReadCloser              { return s.out }
func (s *script) Stderr() io.ReadCloser              { return s.errs }
func (s *script) Resize(Size) error                  { return nil }
func (s *script) Signal(int) error                   { return nil }
func (s *script) Wait(context.Context) (Exit, error) { return Exit{}, nil }

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func collect(a *Attachment) (out, errs string) {
	for c := range a.Output() {
		if c.Stderr {
			errs += string(c.Data)
		} else {
			out += string(c.Data)
		}
	}
	return out, errs
}

func TestALateAttachmentSeesBothStreams(t *testing.T) {
	m := NewMain()
	m.Bind(&script{out: io.NopCloser(strings.NewReader("to stdout")), errs: io.NopCloser(strings.NewReader("to stderr"))})
	<-m.Drained()
	m.Ended(Exit{Code: 3})
	a := m.Attach(true)
	if out, errs := collect(a); out != "to stdout" || errs != "to stderr" {
		t.Errorf("out %q, err %q", out, errs)
	}
	if e, err := a.Wait(t.Context()); err != nil || e.Code != 3 {
		t.Errorf("exit %+v, %v", e, err)
	}
}

func TestTheReplayKeepsTheNewest(t *testing.T) {
	m := NewMain()
	all := strings.Repeat("0123456789abcdef", (ReplayLimit+100000)/16)
	m.Bind(&script{out: io.NopCloser(strings.NewReader(all))})
	<-m.Drained()
	out, _ := collect(m.Attach(false))
	if out != all[len(all)-ReplayLimit:] {
		t.Errorf("replay of %d bytes is not the newest %d", len(out), ReplayLimit)
	}
}

func TestOneAttachmentOwnsTheInput(t *testing.T) {
	r, w := io.Pipe()
	p := &script{out: r}
	m := NewMain()
	m.Bind(p)
	first, second := m.Attach(true), m.Attach(true)
	if _, err := first.Write([]byte("a")); err != nil {
		t.Error(err)
	}
	if _, err := second.Write([]byte("b")); err == nil {
		t.Error("two writers")
	}
	first.Close()
	if !second.Claim() {
		t.Error("a free input cannot be claimed")
	}
	if _, err := second.Write([]byte("c")); err != nil {
		t.Error(err)
	}
	if got := p.in.String(); got != "ac" {
		t.Errorf("input %q", got)
	}
	second.Close()
	w.Close()
	<-m.Drained()
}
