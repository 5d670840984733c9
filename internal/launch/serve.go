package launch

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/launch/wire"
	"openshell.dev/openshell/internal/mounts"
	"openshell.dev/openshell/internal/procs"
)

// handle answers one request. Questions that read /proc or wait for a
// connection run beside the loop; a spawn does not, so that its order holds.
func (l *launcher) handle(f wire.Frame) error {
	switch f.Type {
	case wire.TypeSpawn:
		return l.spawn(f)
	case wire.TypeSignal:
		var m wire.Signal
		if err := f.Unmarshal(&m); err != nil {
			return err
		}
		_ = l.table.signal(f.ID, unix.Signal(m.Number), m.Group) // it may have ended meanwhile
		return nil
	case wire.TypeOwner:
		var m wire.Owner
		if err := f.Unmarshal(&m); err != nil {
			return err
		}
		go l.owner(f.ID, m)
		return nil
	case wire.TypeOpenExe:
		var m wire.OpenExe
		if err := f.Unmarshal(&m); err != nil {
			return err
		}
		fd, err := procs.OpenExe(m.PID, m.Start)
		return l.opened(f.ID, fd, err)
	case wire.TypeDial:
		var m wire.Dial
		if err := f.Unmarshal(&m); err != nil {
			return err
		}
		go func() {
			fd, err := dial(m.Port)
			_ = l.opened(f.ID, fd, err)
		}()
		return nil
	case wire.TypeRenew:
		if err := f.Unmarshal(&wire.Renew{}); err != nil {
			return err
		}
		m := wire.Done{OK: true}
		if _, err := mounts.Renew(l.mounts); err != nil {
			m = wire.Done{Detail: err.Error()}
		}
		return l.conn.Send(f.ID, &m)
	case wire.TypeFreeze:
		var m wire.Freeze
		if err := f.Unmarshal(&m); err != nil {
			return err
		}
		return l.conn.Send(f.ID, freeze(m.Thaw))
	}
	return fmt.Errorf("%w: unknown type %d", wire.ErrMalformed, f.Type)
}

func (l *launcher) owner(id uint32, q wire.Owner) {
	var m wire.Owners
	holders, err := procs.Holders(q.Inode, q.Hints)
	if err == nil {
		for _, h := range holders {
			m.Holders = append(m.Holders, chain(h))
		}
	}
	_ = l.conn.Send(id, &m) // nobody found is an answer: nobody
}

func chain(p procs.Process) []wire.Process {
	list, err := procs.Chain(p.PID)
	if err != nil || list[0].StartTime != p.StartTime {
		return nil // it went away meanwhile: an empty chain is denied
	}
	out := make([]wire.Process, 0, len(list))
	for _, p := range list {
		out = append(out, wire.Process{
			PID: p.PID, PPID: p.PPID, Start: p.StartTime, Exe: p.Exe, Dev: p.ExeDev, Inode: p.ExeInode,
			Size: p.ExeSize, Mtime: p.ExeMtime, Ctime: p.ExeCtime, Deleted: p.Deleted,
		})
	}
	return out
}

func (l *launcher) opened(id uint32, fd int, err error) error {
	if err != nil {
		m := wire.Opened{Errno: errnoOf(err)}
		return l.conn.Send(id, &m)
	}
	defer unix.Close(fd)
	return l.conn.Send(id, &wire.Opened{}, fd)
}

// dial connects to a port on the loopback, IPv4 first.
func dial(port uint16) (int, error) {
	fd, err := dialTo(unix.AF_INET, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}})
	if err != unix.ECONNREFUSED {
		return fd, err
	}
	if fd6, err6 := dialTo(unix.AF_INET6, &unix.SockaddrInet6{Port: int(port), Addr: [16]byte{15: 1}}); err6 == nil {
		return fd6, nil
	}
	return -1, err
}

func dialTo(family int, to unix.Sockaddr) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, err
	}
	for {
		err = unix.Connect(fd, to)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func freeze(thaw bool) *wire.Done {
	if thaw {
		if err := procs.Thaw(); err != nil {
			return &wire.Done{Detail: err.Error()}
		}
		return &wire.Done{OK: true}
	}
	begin := time.Now()
	if _, err := procs.Freeze(); err != nil {
		return &wire.Done{Detail: err.Error()}
	}
	return &wire.Done{OK: true, Detail: time.Since(begin).String()}
}

// errnoOf is the kernel's answer behind err, or EIO.
func errnoOf(err error) int {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return int(errno)
	}
	return int(unix.EIO)
}
