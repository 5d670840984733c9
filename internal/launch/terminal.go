package launch

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// openTerminal makes a terminal of the sandbox's own devpts. The slave is
// opened through the master (TIOCGPTPEER, Linux 4.13), never by path.
func openTerminal(rows, cols uint16) (master, slave int, err error) {
	master, err = unix.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("open a terminal: %w", err)
	}
	if err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		_ = unix.Close(master)
		return -1, -1, fmt.Errorf("unlock the terminal: %w", err)
	}
	slave, err = peer(master)
	if err != nil {
		_ = unix.Close(master)
		return -1, -1, fmt.Errorf("open the terminal's other end: %w", err)
	}
	if rows > 0 && cols > 0 {
		size := unix.Winsize{Row: rows, Col: cols}
		_ = unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &size) // a wrong size is not worth a failed start
	}
	return master, slave, nil
}

func peer(master int) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}
