package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
)

// gate is a writer that waits until it is opened.
type gate struct {
	open chan struct{}
	mu   sync.Mutex
	buf  bytes.Buffer
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.Write(p)
}

func TestASlowWriterDropsAndSaysSo(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	l := NewLog(g, LogOptions{Queue: 4})
	const sent = 100
	for range sent {
		l.Emit(Started("x")) // must return although nobody writes
	}
	close(g.open)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	written, dropped, _ := l.Counts()
	if dropped == 0 {
		t.Fatal("nothing was dropped")
	}
	var real, said int
	for line := range strings.Lines(g.buf.String()) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if r["class_name"] == "Base Event" {
			said++
		} else {
			real++
		}
	}
	if real+int(dropped) != sent {
		t.Errorf("%d written and %d dropped of %d", real, dropped, sent)
	}
	if said == 0 || int(written) != real+said {
		t.Errorf("written %d, events %d, drop reports %d", written, real, said)
	}
}

func TestTheLogOutlivesAWriteError(t *testing.T) {
	w := &flaky{}
	l := NewLog(w, LogOptions{Lines: true})
	l.Emit(Started("one"))
	for {
		if _, _, failed := l.Counts(); failed > 0 {
			break
		}
	}
	l.Emit(Started("two"))
	if err := l.Close(); err == nil {
		t.Error("Close must report what was lost")
	}
	if !strings.Contains(w.buf.String(), "two") {
		t.Errorf("the second event is missing: %q", w.buf.String())
	}
}

type flaky struct {
	calls int
	buf   bytes.Buffer
}

func (f *flaky) Write(p []byte) (int, error) {
	if f.calls++; f.calls == 1 {
		return 0, errors.New("disk full")
	}
	return f.buf.Write(p)
}

func TestTheRingKeepsTheNewestInOrder(t *testing.T) {
	r := NewRing(3)
	for _, s := range []string{"a", "b", "c", "d", "e"} {
		r.Emit(Started(s))
	}
	var got string
	for _, e := range r.Events() {
		got += e.App
	}
	if got != "cde" {
		t.Errorf("ring = %q, want cde", got)
	}
}

func TestEmittingAfterCloseIsHarmless(t *testing.T) {
	l := NewLog(&bytes.Buffer{}, LogOptions{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				l.Emit(Started("x"))
			}
		})
	}
	_ = l.Close()
	wg.Wait()
	l.Emit(Started("late"))
}
