// Package privs takes privileges away from the calling thread or process, and
// reads back what is left.
//
// It owns capabilities, securebits, no_new_privs, resource limits, dumpability,
// descriptor inheritance, the signal dispositions of a launcher, and the parsing
// of /proc/PID/status. It guarantees that a nil error means the state was read
// back from the kernel, not only that a call succeeded. It changes no ids and no
// namespaces, and gives nothing.
//
// Each function says whether it works on the thread or the process. Used by the
// launcher; linked into its binary, so it imports next to nothing.
package privs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// DropCapabilities empties the bounding, ambient, inheritable, permitted and
// effective sets of the calling thread, locks the securebits so that neither id
// 0 nor a set-id change brings any back, and reads all of it back. To empty a
// bounding set that is not empty yet takes CAP_SETPCAP; without it the error
// says so.
func DropCapabilities() error {
	if err := dropBounding(); err != nil {
		return err
	}
	if err := lockSecurebits(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear the ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("empty the capability sets: %w", err)
	}
	return VerifyNoCapabilities()
}

// VerifyNoCapabilities reads all five sets of the calling thread and names the
// first that is not empty.
func VerifyNoCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("read the capability sets: %w", err)
	}
	for _, s := range []struct {
		name      string
		low, high uint32
	}{
		{"effective", sets[0].Effective, sets[1].Effective},
		{"permitted", sets[0].Permitted, sets[1].Permitted},
		{"inheritable", sets[0].Inheritable, sets[1].Inheritable},
	} {
		if s.low|s.high != 0 {
			return fmt.Errorf("the %s capability set is not empty: %08x%08x", s.name, s.high, s.low)
		}
	}
	for n := uintptr(0); ; n++ {
		bound, err := boundingHas(n)
		if err != nil {
			return err
		}
		if bound == absent {
			return nil
		}
		if bound == held {
			return fmt.Errorf("capability %d is still in the bounding set", n)
		}
		ambient, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, n, 0, 0)
		if err != nil {
			return fmt.Errorf("read ambient capability %d: %w", n, err)
		}
		if ambient != 0 {
			return fmt.Errorf("capability %d is still in the ambient set", n)
		}
	}
}

// bounding is whether the kernel knows a capability and holds it in the set.
type bounding uint8

const (
	held    bounding = iota // the safe reading of nothing
	dropped                 // known and not in the set
	absent                  // the kernel has no such number: the list ends
)

func boundingHas(n uintptr) (bounding, error) {
	v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, n, 0, 0, 0)
	switch {
	case errors.Is(err, unix.EINVAL) && n > 0:
		return absent, nil
	case err != nil:
		return held, fmt.Errorf("read capability %d of the bounding set: %w", n, err)
	case v == 0:
		return dropped, nil
	}
	return held, nil
}

func dropBounding() error {
	for n := uintptr(0); ; n++ {
		b, err := boundingHas(n)
		if err != nil {
			return err
		}
		if b == absent {
			return nil
		}
		if b == dropped {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, n, 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d from the bounding set (takes CAP_SETPCAP): %w", n, err)
		}
	}
}

// Securebits (linux/securebits.h): each bit is followed by its lock.
const (
	secureNoRoot         = 1 << 0
	secureNoSetuidFixup  = 1 << 2
	secureKeepCaps       = 1 << 4
	secureKeepCapsLocked = 1 << 5
	secureNoAmbientRaise = 1 << 6

	secureLocked = (secureNoRoot|secureNoSetuidFixup|secureNoAmbientRaise)*3 | secureKeepCapsLocked
)

// lockSecurebits needs CAP_SETPCAP. A thread that has none left can gain none
// either, so EPERM is accepted there; keep-caps is off in any case.
func lockSecurebits() error {
	err := unix.Prctl(unix.PR_SET_SECUREBITS, secureLocked, 0, 0, 0)
	if err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("lock the securebits: %w", err)
	}
	bits, readErr := Securebits()
	if readErr != nil {
		return readErr
	}
	if bits&secureKeepCaps != 0 {
		return fmt.Errorf("keep-caps is still on (securebits %#x)", bits)
	}
	if err == nil && bits != secureLocked {
		return fmt.Errorf("securebits read back %#x, set %#x", bits, secureLocked)
	}
	return nil
}

// Securebits reads the securebits of the calling thread.
func Securebits() (int, error) {
	bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	if err != nil {
		return 0, fmt.Errorf("read the securebits: %w", err)
	}
	return bits, nil
}

// NoNewPrivs makes sure that no execve of the calling thread or its children
// gives a privilege (set-id bits, file capabilities), for ever.
func NoNewPrivs() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return VerifyNoNewPrivs()
}

// VerifyNoNewPrivs reads the bit of the calling thread back.
func VerifyNoNewPrivs() error {
	set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("read no_new_privs: %w", err)
	}
	if set != 1 {
		return errors.New("no_new_privs is not set")
	}
	return nil
}
