package event

import (
	"bufio"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// gather is how long a log waits for further events before it writes.
const gather = 20 * time.Millisecond

// LogOptions sets up a Log. The zero value is a JSONL log with a queue of
// 4096 events and no origin.
type LogOptions struct {
	Origin Origin
	Queue  int  // events held while the writer is slow; more are dropped and counted
	Lines  bool // the shorthand instead of JSON
}

// Log writes events to a writer, one line each, from a goroutine of its own.
// Events that find the queue full are dropped and counted; the count is
// written as an event as soon as there is room.
type Log struct {
	w       io.Writer
	opts    LogOptions
	queue   chan *Event   // pointers: a full-size queue of events would cost a megabyte
	closing chan struct{} // closed when Close begins
	done    chan struct{}

	mu     sync.RWMutex // held shared while an event is queued, so that Close can end the queue
	closed bool         // no more events are taken

	dropped atomic.Uint64 // events that found the queue full
	written atomic.Uint64 // lines handed to the writer
	failed  atomic.Uint64 // lines the writer or the encoder refused
}

// NewLog starts a log on w. Close ends it; w stays open.
func NewLog(w io.Writer, opts LogOptions) *Log {
	if opts.Queue <= 0 {
		opts.Queue = 4096
	}
	l := &Log{w: w, opts: opts, queue: make(chan *Event, opts.Queue), closing: make(chan struct{}), done: make(chan struct{})}
	go l.write()
	return l
}

// Emit queues e, or drops it if the queue is full or the log is closed.
func (l *Log) Emit(e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		l.dropped.Add(1)
		return
	}
	select {
	case l.queue <- &e:
	default:
		l.dropped.Add(1)
	}
}

// Close writes what is queued and waits until it is written.
func (l *Log) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.closing)
		close(l.queue)
	}
	l.mu.Unlock()
	<-l.done
	if n := l.failed.Load(); n > 0 {
		return fmt.Errorf("%d events could not be written", n)
	}
	return nil
}

// Counts returns how many lines were written, dropped and refused.
func (l *Log) Counts() (written, dropped, failed uint64) {
	return l.written.Load(), l.dropped.Load(), l.failed.Load()
}

func (l *Log) write() {
	defer close(l.done)
	b := bufio.NewWriterSize(l.w, 8<<10)
	var seq, reported uint64
	put := func(e Event) {
		seq++
		line, err := l.encode(seq, e)
		if err == nil {
			_, err = b.Write(append(line, '\n'))
		}
		if err != nil {
			l.failed.Add(1)
			b.Reset(l.w) // a bufio.Writer keeps its first error for ever
			return
		}
		l.written.Add(1)
	}
	for e := range l.queue {
		put(*e)
		if len(l.queue) == 0 {
			// Wait a moment for more: one wake-up and one write for many events.
			select {
			case <-time.After(gather):
			case <-l.closing:
			}
		}
		if n := l.dropped.Load(); n > reported {
			put(Dropped(n - reported))
			reported = n
		}
		if len(l.queue) == 0 {
			if err := b.Flush(); err != nil {
				l.failed.Add(1)
				b.Reset(l.w)
			}
		}
	}
	if n := l.dropped.Load(); n > reported {
		put(Dropped(n - reported))
	}
	if err := b.Flush(); err != nil {
		l.failed.Add(1)
	}
}

func (l *Log) encode(seq uint64, e Event) ([]byte, error) {
	if !l.opts.Lines {
		return JSON(l.opts.Origin, seq, e)
	}
	const stamp = "2006-01-02T15:04:05.000Z"
	return []byte(e.Time.UTC().Format(stamp) + " OCSF " + Line(e)), nil
}

// Ring keeps the newest events, cleaned, for a reader that comes later.
type Ring struct {
	mu   sync.Mutex
	buf  []Event // oldest first once full, from next
	next int     // where the next event goes
	size int
}

// NewRing keeps size events.
func NewRing(size int) *Ring { return &Ring{size: max(size, 1)} }

// Emit keeps e and forgets the oldest if there are too many.
func (r *Ring) Emit(e Event) {
	e = Clean(e)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.buf) < r.size {
		r.buf = append(r.buf, e)
		return
	}
	r.buf[r.next] = e
	r.next = (r.next + 1) % r.size
}

// Events returns what is kept, oldest first.
func (r *Ring) Events() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Event, 0, len(r.buf))
	out = append(out, r.buf[r.next:]...)
	return append(out, r.buf[:r.next]...)
}
