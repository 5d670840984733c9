package session

import (
	"context"
	"errors"
	"io"
	"sync"
)

// ReplayLimit bounds the output kept for whoever attaches later (bytes).
const ReplayLimit = 1 << 20

// ErrDetached is returned to an attachment that was ended from outside.
var ErrDetached = errors.New("detached from the main process")

// Main lets several attachments share one process: everybody sees the output,
// one of them owns the input. It keeps the last ReplayLimit bytes of output.
type Main struct {
	mu      sync.Mutex
	proc    Process
	replay  []Chunk // newest output in order, at most ReplayLimit bytes
	kept    int     // bytes in replay
	viewers map[*Attachment]struct{}
	owner   *Attachment // who may write; nil when free
	pumps   int         // output streams still open
	drained chan struct{}
	done    chan struct{}
	exit    Exit
}

// NewMain makes a multiplexer without a process; Bind gives it one.
func NewMain() *Main {
	return &Main{viewers: map[*Attachment]struct{}{}, drained: make(chan struct{}), done: make(chan struct{})}
}

// Bind starts pumping the output of p. It is called once. Run returns when
// the process has ended and its output has been read.
func (m *Main) Bind(p Process) {
	m.mu.Lock()
	m.proc = p
	streams := []io.ReadCloser{p.Stdout()}
	if e := p.Stderr(); e != nil {
		streams = append(streams, e)
	}
	m.pumps = len(streams)
	m.mu.Unlock()
	for i, r := range streams {
		go m.pump(r, i == 1)
	}
}

// Ended records the exit of the main process. It is called once.
func (m *Main) Ended(e Exit) {
	m.mu.Lock()
	m.exit = e
	m.mu.Unlock()
	close(m.done)
}

// Done is closed when the process has ended.
func (m *Main) Done() <-chan struct{} { return m.done }

// Drained is closed when all output has been read from the process.
func (m *Main) Drained() <-chan struct{} { return m.drained }

// Exit returns how the process ended; it is valid after Done.
func (m *Main) Exit() Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exit
}

func (m *Main) pump(r io.ReadCloser, stderr bool) {
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			m.publish(buf[:n], stderr)
		}
		if err != nil {
			break
		}
	}
	_ = r.Close()
	m.mu.Lock()
	m.pumps--
	last := m.pumps == 0
	m.mu.Unlock()
	if last {
		close(m.drained)
		m.mu.Lock()
		for a := range m.viewers {
			a.finish()
		}
		m.mu.Unlock()
	}
}

func (m *Main) publish(p []byte, stderr bool) {
	m.mu.Lock()
	m.keep(p, stderr)
	views := make([]*Attachment, 0, len(m.viewers))
	for a := range m.viewers {
		views = append(views, a)
	}
	m.mu.Unlock()
	for _, a := range views {
		a.offer(p, stderr)
	}
}

// keep adds p to the replay, joined to the last piece where it is small and of
// the same stream, and forgets the oldest pieces beyond the limit.
func (m *Main) keep(p []byte, stderr bool) {
	m.kept += len(p)
	if n := len(m.replay); n > 0 && m.replay[n-1].Stderr == stderr && len(m.replay[n-1].Data)+len(p) <= pieceSize {
		m.replay[n-1].Data = append(m.replay[n-1].Data, p...)
	} else {
		m.replay = append(m.replay, Chunk{Data: append([]byte(nil), p...), Stderr: stderr})
	}
	for m.kept > ReplayLimit {
		oldest := &m.replay[0]
		over := min(m.kept-ReplayLimit, len(oldest.Data))
		oldest.Data = oldest.Data[over:]
		m.kept -= over
		if len(oldest.Data) == 0 {
			m.replay = m.replay[1:]
		}
	}
}

// pieceSize is how large a kept piece of output grows.
const pieceSize = 16 << 10

// Attach joins the main process. With write the attachment owns the input if
// it is free; Writer reports the outcome.
func (m *Main) Attach(write bool) *Attachment {
	a := &Attachment{main: m, quit: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	if write && m.owner == nil {
		m.owner = a
	}
	a.out = make(chan Chunk, len(m.replay)+64)
	for _, c := range m.replay {
		a.out <- Chunk{Data: append([]byte(nil), c.Data...), Stderr: c.Stderr}
	}
	select {
	case <-m.drained:
		a.finish()
	default:
		m.viewers[a] = struct{}{}
	}
	return a
}

// Chunk is a piece of output in the order it was read.
type Chunk struct {
	Data   []byte
	Stderr bool
}

// Attachment is one view of the main process.
type Attachment struct {
	main *Main
	out  chan Chunk
	quit chan struct{}
	once sync.Once
	end  sync.Once
}

// Output yields pieces of output and is closed after the last. A slow reader
// holds the process back.
func (a *Attachment) Output() <-chan Chunk { return a.out }

// Writer reports whether this attachment owns the input.
func (a *Attachment) Writer() bool {
	a.main.mu.Lock()
	defer a.main.mu.Unlock()
	return a.main.owner == a
}

// Claim takes the input if nobody owns it and reports whether it is ours now.
func (a *Attachment) Claim() bool {
	a.main.mu.Lock()
	defer a.main.mu.Unlock()
	if a.main.owner == nil {
		a.main.owner = a
	}
	return a.main.owner == a
}

// Write sends input to the main process; only the owner may.
func (a *Attachment) Write(p []byte) (int, error) {
	if !a.Writer() {
		return 0, errors.New("another attachment owns the input")
	}
	return a.main.process().Stdin().Write(p)
}

// CloseInput ends the input of the process (no effect on a terminal).
func (a *Attachment) CloseInput() error {
	if !a.Writer() {
		return nil
	}
	return a.main.process().Stdin().Close()
}

// Resize sets the terminal's size if this attachment owns the input.
func (a *Attachment) Resize(s Size) error {
	if !a.Writer() {
		return nil
	}
	return a.main.process().Resize(s)
}

// Signal passes a signal to the main process if this attachment owns the input.
func (a *Attachment) Signal(sig int) error {
	if !a.Writer() {
		return nil
	}
	return a.main.process().Signal(sig)
}

// Wait returns the exit of the process, or the error of ctx.
func (a *Attachment) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-a.main.done:
		return a.main.Exit(), nil
	case <-a.quit:
		return Exit{}, ErrDetached
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
}

// Close detaches; the process goes on with its input open.
func (a *Attachment) Close() {
	a.once.Do(func() {
		close(a.quit)
		a.main.mu.Lock()
		delete(a.main.viewers, a)
		if a.main.owner == a {
			a.main.owner = nil
		}
		a.main.mu.Unlock()
	})
}

func (a *Attachment) offer(p []byte, stderr bool) {
	select {
	case a.out <- Chunk{Data: append([]byte(nil), p...), Stderr: stderr}:
	case <-a.quit:
	}
}

func (a *Attachment) finish() { a.end.Do(func() { close(a.out) }) }

func (m *Main) process() Process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.proc
}
