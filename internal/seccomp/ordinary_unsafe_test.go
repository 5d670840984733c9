package seccomp

import (
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
	"openshell.dev/openshell/internal/kerneltest"
)

func call6(nr uintptr, a ...uintptr) error {
	var v [6]uintptr
	copy(v[:], a)
	if _, _, errno := unix.RawSyscall6(nr, v[0], v[1], v[2], v[3], v[4], v[5]); errno != 0 {
		return errno
	}
	return nil
}

// What ordinary programs need and earlier sandboxes took away.
func TestWhatOrdinaryProgramsNeedStays(t *testing.T) {
	kerneltest.Require(t, kerneltest.Seccomp)
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		install(t)
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
		if err != nil {
			t.Fatalf("pidfd_open: %v", err)
		}
		dir := t.TempDir()
		for _, tt := range []struct {
			name string
			do   func() error
		}{
			{"signal own group", func() error { return unix.Kill(0, 0) }},
			{"signal own group by number", func() error { return unix.Kill(-unix.Getpgrp(), 0) }},
			{"signal by pidfd", func() error { return unix.PidfdSendSignal(pidfd, 0, nil, 0) }},
			{"nice", func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, 5) }},
			{"memfd_create", func() error { fd, err := unix.MemfdCreate("m", unix.MFD_CLOEXEC); unix.Close(fd); return err }},
			{"close_range", func() error { return unix.CloseRange(1000, 2000, 0) }},
			{"close_range with its own table", func() error { return unix.CloseRange(1000, 2000, unix.CLOSE_RANGE_UNSHARE) }},
			{"affinity", func() error {
				var set unix.CPUSet
				if err := unix.SchedGetaffinity(0, &set); err != nil {
					return err
				}
				return unix.SchedSetaffinity(unix.Gettid(), &set)
			}},
			{"own limits", func() error { return unix.Prlimit(0, unix.RLIMIT_CORE, &unix.Rlimit{}, nil) }},
			{"unshare files", func() error { return unix.Unshare(unix.CLONE_FS) }},
			{"inotify", func() error { fd, err := unix.InotifyInit1(unix.IN_CLOEXEC); unix.Close(fd); return err }},
			{"undumpable", func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }},
			{"personality query", func() error { return call6(unix.SYS_PERSONALITY, 0xffffffff) }},
			{"personality without randomization", func() error { return call6(unix.SYS_PERSONALITY, addrNoRandomize) }},
			{"landlock of its own", func() error { return call6(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1) }},
			{"notification sizes", func() error {
				var sizes [3]uint16
				return call6(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&sizes)))
			}},
			{"passing descriptors", func() error { return unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(pair[1]), nil, 0) }},
			{"receiving them", func() error {
				_, _, _, _, err := unix.Recvmsg(pair[1], make([]byte, 8), make([]byte, 64), unix.MSG_CMSG_CLOEXEC)
				return err
			}},
			{"urgent-free send flags", func() error { return unix.Send(pair[0], []byte("x"), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT) }},
			{"bytes waiting", func() error { _, err := unix.IoctlGetInt(pair[1], unix.TIOCINQ); return err }},
			{"files", func() error {
				name := dir + "/f"
				if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
					return err
				}
				return unix.Unlink(name)
			}},
		} {
			if err := tt.do(); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
	})
}
