package egress

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// Buffers of the relay. Plain reads and writes through 256 KiB beat splice on
// bulk; but a held buffer must be rare, so a pump holds one only between a
// read that returned and the write of it, starts small, and grows while reads
// fill what they get. The number of large ones is bounded: a sandbox that
// opens thousands of connections and reads none must not hold our memory.
const (
	smallBuffer = 16 << 10
	largeBuffer = 256 << 10
	maxLarge    = 64
)

var (
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, smallBuffer); return &b }}
	largeBuffers = sync.Pool{New: func() any { b := make([]byte, largeBuffer); return &b }}
	largeInUse   atomic.Int64
)

func takeBuffer(large bool) *[]byte {
	if large {
		if largeInUse.Add(1) <= maxLarge {
			return largeBuffers.Get().(*[]byte)
		}
		largeInUse.Add(-1)
	}
	return smallBuffers.Get().(*[]byte)
}

func giveBuffer(b *[]byte) {
	if len(*b) == largeBuffer {
		largeInUse.Add(-1)
		largeBuffers.Put(b)
		return
	}
	smallBuffers.Put(b)
}

// relay moves bytes both ways until both sides ended or one failed.
func (l *live) relay() {
	var wg sync.WaitGroup
	wg.Go(func() {
		if len(l.early) > 0 {
			if _, err := l.upstream.Write(l.early); err != nil {
				l.cut()
			}
			l.up.Add(uint64(len(l.early)))
		}
		l.pump(l.upstream, l.client, &l.up)
	})
	l.pump(l.client, l.upstream, &l.down)
	wg.Wait()
}

// pump moves bytes from src to dst. The end of src ends dst's sending half;
// a failure of either ends both connections by reset: a stream that was cut
// must not look complete.
func (l *live) pump(dst, src net.Conn, count *atomic.Uint64) {
	if err := move(dst, src, count); err != nil {
		l.cut()
		return
	}
	l.half.Store(true)
	w, ok := dst.(interface{ CloseWrite() error })
	if !ok {
		l.cut()
		return
	}
	// A failure means that dst is gone already. The other pump finds that out
	// by itself; a reset here could take bytes away that are still on their way.
	_ = w.CloseWrite()
}

// move copies src to dst until the end of src, which is no error.
func move(dst io.Writer, src net.Conn, count *atomic.Uint64) error {
	r := reader{}
	if sc, ok := src.(syscall.Conn); ok {
		raw, err := sc.SyscallConn()
		if err != nil {
			return err
		}
		r.raw, r.attempt = raw, r.ready
	}
	for {
		if err := r.read(src); err != nil {
			return err
		}
		if r.n == 0 {
			return nil
		}
		_, err := dst.Write((*r.buf)[:r.n])
		full := r.n == len(*r.buf)
		count.Add(uint64(r.n))
		giveBuffer(r.buf)
		r.buf = nil
		if err != nil {
			return err
		}
		switch {
		case full:
			r.large = true
		case r.n < smallBuffer/2:
			r.large = false
		}
	}
}

// reader reads from a descriptor without holding a buffer while it waits.
type reader struct {
	raw     syscall.RawConn
	attempt func(uintptr) bool // ready, bound once
	buf     *[]byte            // holds n bytes after read, else nil
	n       int
	err     error
	large   bool
}

// read leaves the next bytes in buf, or n = 0 at the end of the stream.
func (r *reader) read(src net.Conn) error {
	if r.raw == nil {
		return r.readPlain(src)
	}
	r.err = nil
	if err := r.raw.Read(r.attempt); err != nil {
		return err
	}
	return r.err
}

func (r *reader) ready(fd uintptr) bool {
	buf := takeBuffer(r.large)
	for {
		n, err := syscall.Read(int(fd), *buf)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			giveBuffer(buf)
			return false
		case err != nil:
			giveBuffer(buf)
			r.n, r.err = 0, err
		case n <= 0:
			giveBuffer(buf)
			r.n = 0
		default:
			r.buf, r.n = buf, n
		}
		return true
	}
}

// readPlain serves streams without a descriptor. Data that comes together
// with an error is delivered first; the error comes back at the next read.
func (r *reader) readPlain(src net.Conn) error {
	buf := takeBuffer(r.large)
	for {
		n, err := src.Read(*buf)
		if n > 0 {
			r.buf, r.n = buf, n
			return nil
		}
		if err != nil {
			giveBuffer(buf)
			r.n = 0
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}
