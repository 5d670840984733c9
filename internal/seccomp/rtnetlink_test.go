package seccomp

import (
	"encoding/binary"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"openshell.dev/openshell/internal/kerneltest"
	"openshell.dev/openshell/internal/privs"
)

// answer sends one rtnetlink request with an empty body and returns the errno of
// the acknowledgement, or the type of the first message of a dump.
func answer(t *testing.T, fd int, kind, flags uint16) (syscall.Errno, uint16) {
	t.Helper()
	msg := make([]byte, unix.NLMSG_HDRLEN+28)
	binary.NativeEndian.PutUint32(msg[0:], uint32(len(msg)))
	binary.NativeEndian.PutUint16(msg[4:], kind)
	binary.NativeEndian.PutUint16(msg[6:], unix.NLM_F_REQUEST|flags)
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatalf("send type %d: %v", kind, err)
	}
	buf := make([]byte, 1<<16)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil || n < unix.NLMSG_HDRLEN+4 {
		t.Fatalf("answer to type %d: %d bytes, %v", kind, n, err)
	}
	got := binary.NativeEndian.Uint16(buf[4:])
	if got == unix.NLMSG_ERROR {
		return syscall.Errno(-int32(binary.NativeEndian.Uint32(buf[unix.NLMSG_HDRLEN:]))), got
	}
	return 0, got
}

func TestRouteNetlinkOnlyReads(t *testing.T) {
	kerneltest.Require(t, kerneltest.Seccomp, kerneltest.NetAdmin)
	kerneltest.Child{Ordinary: true, Clone: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, InsideID: 0, Ambient: true}.Run(t, func(t *testing.T) {
		before, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			t.Fatal(err)
		}
		// With capabilities the kernel goes on to the body, which says nothing.
		if errno, _ := answer(t, before, unix.RTM_DELLINK, unix.NLM_F_ACK); errno == unix.EPERM {
			t.Errorf("RTM_DELLINK with capabilities = %v: the test shows nothing", errno)
		}
		if err := privs.DropCapabilities(); err != nil {
			t.Fatal(err)
		}
		install(t)
		after, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			t.Fatal(err)
		}
		for fd, name := range map[int]string{before: "a socket from before", after: "a new socket"} {
			for kind := uint16(unix.RTM_BASE); kind <= unix.RTM_MAX; kind++ {
				if kind&3 == 2 {
					continue // RTM_GET*
				}
				if errno, _ := answer(t, fd, kind, unix.NLM_F_ACK); errno != unix.EPERM {
					t.Errorf("%s: type %d = %v, want EPERM", name, kind, errno)
				}
			}
			for kind, want := range map[uint16]uint16{unix.RTM_GETLINK: unix.RTM_NEWLINK, unix.RTM_GETADDR: unix.NLMSG_DONE} {
				if errno, got := answer(t, fd, kind, unix.NLM_F_DUMP); errno != 0 || got != want {
					t.Errorf("%s: dump %d = type %d, %v", name, kind, got, errno)
				}
				drain(fd)
			}
		}
	})
}

func drain(fd int) {
	buf := make([]byte, 1<<16)
	for {
		if _, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT); err != nil {
			return
		}
	}
}
