package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Conn is one end of the socket. Send may be called from several goroutines,
// Receive from one.
//
// The socket waits in the runtime's poller: a goroutine blocked in recvmsg
// would hold one of few processors until the runtime notices.
type Conn struct {
	file *os.File
	raw  syscall.RawConn
	wmu  sync.Mutex // one frame at a time on the socket
	buf  []byte     // read but not yet consumed
	fds  []int      // descriptors received, in order, not yet claimed
	tmp  []byte
	oob  []byte
}

// New takes over fd, a Unix stream socket.
func New(fd int) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("prepare the launcher's socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "launcher's socket")
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("prepare the launcher's socket: %w", err)
	}
	return &Conn{file: f, raw: raw, tmp: make([]byte, 16<<10), oob: make([]byte, unix.CmsgSpace(MaxFDs*4))}, nil
}

// Pair returns two connected sockets: ours as a Conn and the descriptor to be
// inherited by the launcher as a file.
func Pair() (*Conn, *os.File, error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make the launcher's socket: %w", err)
	}
	c, err := New(p[0])
	if err != nil {
		_ = unix.Close(p[0])
		_ = unix.Close(p[1])
		return nil, nil, err
	}
	return c, os.NewFile(uintptr(p[1]), "launcher"), nil
}

// Send writes m with descriptors, which stay the caller's.
func (c *Conn) Send(id uint32, m Message, fds ...int) error {
	payload := Marshal(m)
	if len(payload) > MaxFrame {
		return fmt.Errorf("frame of %d bytes, at most %d are allowed", len(payload), MaxFrame)
	}
	if len(fds) > MaxFDs {
		return fmt.Errorf("%d descriptors with one frame, at most %d are allowed", len(fds), MaxFDs)
	}
	b := make([]byte, 0, header+len(payload))
	b = binary.LittleEndian.AppendUint32(b, uint32(header-4+len(payload)))
	b = append(b, byte(m.Type()), byte(len(fds)))
	b = binary.LittleEndian.AppendUint32(b, id)
	b = append(b, payload...)
	c.wmu.Lock()
	defer c.wmu.Unlock()
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for len(b) > 0 {
		var n int
		var failed error
		err := c.raw.Write(func(fd uintptr) bool {
			n, failed = unix.SendmsgN(int(fd), b, rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			return failed != unix.EAGAIN
		})
		if failed == unix.EINTR {
			continue
		}
		if err = errors.Join(err, failed); err != nil {
			return fmt.Errorf("write to the other half: %w", err)
		}
		b, rights = b[n:], nil
	}
	return nil
}

// Receive returns the next frame. Its descriptors belong to the caller and
// are close-on-exec. io.EOF means the other half is gone.
func (c *Conn) Receive() (Frame, error) {
	for {
		if f, ok, err := c.parse(); err != nil || ok {
			return f, err
		}
		if err := c.fill(); err != nil {
			return Frame{}, err
		}
	}
}

func (c *Conn) parse() (Frame, bool, error) {
	if len(c.buf) < 4 {
		return Frame{}, false, nil
	}
	n := binary.LittleEndian.Uint32(c.buf)
	if n < header-4 || n > MaxFrame+header-4 {
		return Frame{}, false, fmt.Errorf("%w: length %d", ErrMalformed, n)
	}
	if uint32(len(c.buf)-4) < n {
		return Frame{}, false, nil
	}
	f := Frame{Type: Type(c.buf[4]), ID: binary.LittleEndian.Uint32(c.buf[6:])}
	want := int(c.buf[5])
	// Descriptors travel with the first byte of their frame.
	if want > MaxFDs || want > len(c.fds) {
		return Frame{}, false, fmt.Errorf("%w: %d descriptors announced, %d came", ErrMalformed, want, len(c.fds))
	}
	f.FDs = append([]int(nil), c.fds[:want]...)
	c.fds = append(c.fds[:0], c.fds[want:]...)
	f.Payload = append([]byte(nil), c.buf[header:4+n]...)
	c.buf = append(c.buf[:0], c.buf[4+n:]...)
	return f, true, nil
}

func (c *Conn) fill() error {
	for {
		var n, oobn, flags int
		var failed error
		err := c.raw.Read(func(fd uintptr) bool {
			n, oobn, flags, _, failed = unix.Recvmsg(int(fd), c.tmp, c.oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
			return failed != unix.EAGAIN
		})
		if failed == unix.EINTR {
			continue
		}
		if errors.Is(err, os.ErrClosed) {
			return io.EOF
		}
		if err = errors.Join(err, failed); err != nil {
			return fmt.Errorf("read from the other half: %w", err)
		}
		if n == 0 {
			return io.EOF
		}
		if err := c.collect(c.oob[:oobn]); err != nil {
			return err
		}
		if flags&unix.MSG_CTRUNC != 0 {
			return fmt.Errorf("%w: descriptors were cut off", ErrMalformed)
		}
		c.buf = append(c.buf, c.tmp[:n]...)
		return nil
	}
}

func (c *Conn) collect(oob []byte) error {
	if len(oob) == 0 {
		return nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("%w: control message: %w", ErrMalformed, err)
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return fmt.Errorf("%w: descriptors: %w", ErrMalformed, err)
		}
		c.fds = append(c.fds, fds...)
	}
	if len(c.fds) > 4*MaxFDs {
		return fmt.Errorf("%w: %d unclaimed descriptors", ErrMalformed, len(c.fds))
	}
	return nil
}

// Close ends the connection; a Receive under way returns io.EOF.
func (c *Conn) Close() error {
	_ = c.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	return nil
}

// Release closes the socket itself; only after Receive has returned for good.
func (c *Conn) Release() {
	for _, fd := range c.fds {
		_ = unix.Close(fd)
	}
	c.fds = nil
	_ = c.file.Close()
}
