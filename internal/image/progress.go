package image

import (
	"fmt"
	"sync"
	"time"
)

// Step is a stage of a pull.
type Step uint8

// The steps in the order in which they come.
const (
	StepResolve  Step = iota + 1 // asking what the source is
	StepRead                     // reading an archive
	StepWait                     // another process is pulling the same image
	StepDownload                 // bytes of a layer
	StepUnpack                   // writing a layer's files
	StepDone
)

// Progress is the state of a pull. Layers are fetched at the same time, so
// reports of several interleave.
type Progress struct {
	Step   Step
	Layer  int // from 1, 0 if it does not apply
	Layers int
	Done   int64 // bytes, of the layer
	Total  int64
	Detail string
}

// String is one status line.
func (p Progress) String() string {
	switch p.Step {
	case StepResolve:
		return "resolving " + p.Detail
	case StepRead:
		return "reading " + p.Detail
	case StepWait:
		return "waiting for " + p.Detail
	case StepDownload:
		return fmt.Sprintf("pulling layer %d/%d %s %s of %s", p.Layer, p.Layers, p.Detail, byteSize(p.Done), byteSize(p.Total))
	case StepUnpack:
		return fmt.Sprintf("unpacking layer %d/%d", p.Layer, p.Layers)
	case StepDone:
		return "image ready"
	}
	return ""
}

const tellEvery = 100 * time.Millisecond

// teller serialises reports and thins out those of bytes.
type teller struct {
	f    func(Progress)
	mu   sync.Mutex
	last map[int]time.Time // guarded by mu: layer -> its last report
}

func newTeller(f func(Progress)) *teller {
	return &teller{f: f, last: map[int]time.Time{}}
}

func (t *teller) step(p Progress) {
	if t.f == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.f(p)
}

func (t *teller) bytes(p Progress) {
	if t.f == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.Sub(t.last[p.Layer]) < tellEvery {
		return
	}
	t.last[p.Layer] = now
	t.f(p)
}
