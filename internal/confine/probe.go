package confine

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Act is what a probe tries. The zero value is nothing and fails.
type Act uint8

// The acts.
const (
	OpenRead  Act = iota + 1 // open Path for reading; a directory for listing
	OpenWrite                // open an existing file for writing, without changing it
	Create                   // make a new file at Path, and take it away again
	Connect                  // connect a TCP socket to Address
	Send                     // send one empty datagram to Address
)

// Probe is a check whose arguments only the caller knows.
type Probe struct {
	Name    string
	Act     Act
	Path    string
	Address unix.Sockaddr // *unix.SockaddrInet4 or *unix.SockaddrInet6
	// Want lists the errnos that will do; empty means it must work.
	Want []syscall.Errno
	// Patience bounds a Connect; 0 means 100 ms. It is only used up where the
	// answer is silence.
	Patience time.Duration
}

// ErrSilence is the result of a Connect that nobody answered.
var ErrSilence = errors.New("no answer")

func (p Probe) try() error {
	switch p.Act {
	case OpenRead:
		return p.open(unix.O_RDONLY)
	case OpenWrite:
		return p.open(unix.O_WRONLY)
	case Create:
		if err := p.open(unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL); err != nil {
			return err
		}
		return unix.Unlink(p.Path)
	case Connect:
		return p.connect()
	case Send:
		return p.send()
	}
	return fmt.Errorf("probe %q tries nothing", p.Name)
}

func (p Probe) open(flags int) error {
	// O_NONBLOCK: a FIFO or a device must not hold up the start.
	fd, err := unix.Open(p.Path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0o600)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func (p Probe) socket(kind int) (int, error) {
	family := unix.AF_INET
	switch p.Address.(type) {
	case *unix.SockaddrInet4:
	case *unix.SockaddrInet6:
		family = unix.AF_INET6
	default:
		return -1, fmt.Errorf("probe %q has no address", p.Name)
	}
	return unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
}

func (p Probe) connect() error {
	fd, err := p.socket(unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, p.Address); err != unix.EINPROGRESS {
		return err
	}
	patience := p.Patience
	if patience == 0 {
		patience = 100 * time.Millisecond
	}
	end := time.Now().Add(patience)
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(fds, int(max(time.Until(end), 0)/time.Millisecond))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrSilence
		}
		value, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil {
			return err
		}
		if value != 0 {
			return syscall.Errno(value)
		}
		return nil
	}
}

func (p Probe) send() error {
	fd, err := p.socket(unix.SOCK_DGRAM)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, nil, 0, p.Address)
}
