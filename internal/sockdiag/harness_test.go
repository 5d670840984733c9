package sockdiag

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/kerneltest"
	"openshell.dev/openshell/internal/netns"
)

const insideVar = "SOCKDIAG_TEST_INSIDE"

func TestMain(m *testing.M) {
	if os.Getenv(insideVar) != "" {
		beInside()
		return
	}
	os.Exit(m.Run())
}

// sandbox is a floor in another network namespace, with a program that does
// as it is told. The test itself stays outside, as an ordinary account.
type sandbox struct {
	netns.Sockets
	t     *testing.T
	conn  *net.UnixConn
	reply *bufio.Scanner
}

// outside runs body as an ordinary account without any capability.
func outside(t *testing.T, body func(t *testing.T, s *sandbox)) {
	t.Helper()
	kerneltest.Require(t, kerneltest.NetAdmin)
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) { body(t, start(t)) })
}

func start(t *testing.T) *sandbox {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), insideVar+"=1")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:   syscall.SIGKILL,
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	c, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		t.Fatal(err)
	}
	s := &sandbox{t: t, conn: c.(*net.UnixConn), reply: bufio.NewScanner(c)}
	t.Cleanup(func() {
		s.conn.Close()
		s.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	s.conn.SetDeadline(time.Now().Add(60 * time.Second))
	one, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4*int(netns.Count)))
	_, n, _, _, err := s.conn.ReadMsgUnix(one, oob)
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		t.Fatalf("descriptors: %v, %v", msgs, err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != int(netns.Count) {
		t.Fatalf("descriptors: %v, %v", fds, err)
	}
	copy(s.Sockets[:], fds)
	return s
}

// tell has the program inside do something and returns what it says.
func (s *sandbox) tell(format string, args ...any) string {
	s.t.Helper()
	if _, err := fmt.Fprintf(s.conn, format+"\n", args...); err != nil {
		s.t.Fatal(err)
	}
	if !s.reply.Scan() {
		s.t.Fatalf("no reply to %q: %v", fmt.Sprintf(format, args...), s.reply.Err())
	}
	return s.reply.Text()
}

// accept takes a connection from a listener of the floor.
func (s *sandbox) accept(i netns.Index) *net.TCPConn {
	s.t.Helper()
	fd, err := unix.FcntlInt(uintptr(s.Sockets[i]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		s.t.Fatal(err)
	}
	defer l.Close()
	l.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second))
	c, err := l.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// beInside makes the floor, hands it over and does what it is told: "dial
// ADDR", "mapped ADDR", "bound DEVICE ADDR" answer "LOCAL INODE" and hold the
// connection, "send ADDR" sends a datagram, "drop" closes the last connection.
func beInside() {
	runtime.LockOSThread()
	rep, err := netns.Setup()
	fatal(err)
	s, err := netns.Listen(rep)
	fatal(err)
	fatal(s.LoadFence())
	fatal(unix.Sendmsg(3, []byte{0}, unix.UnixRights(s[:]...), nil, 0))
	s.Close()
	in, last := bufio.NewScanner(os.NewFile(3, "control")), -1
	for in.Scan() {
		words := strings.Fields(in.Text())
		var out string
		switch words[0] {
		case "drop":
			unix.Close(last)
			out = "dropped"
		case "send":
			out = "sent"
			if c, err := net.Dial("udp", words[1]); err != nil {
				out = err.Error()
			} else if _, err := c.Write([]byte("x")); err != nil {
				out = errnoName(err)
			}
		default:
			last, out = dial(words[0], words[1:])
		}
		fmt.Fprintln(os.NewFile(3, "control"), out)
	}
}

func dial(how string, words []string) (fd int, out string) {
	to, err := net.ResolveTCPAddr("tcp", words[len(words)-1])
	fatal(err)
	family, sa := unix.AF_INET6, unix.Sockaddr(nil)
	switch v4 := to.IP.To4(); {
	case v4 != nil && how != "mapped":
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(v4)}
	default:
		sa = &unix.SockaddrInet6{Port: to.Port, Addr: [16]byte(to.IP.To16())}
		if to.Zone != "" {
			i, err := net.InterfaceByName(to.Zone)
			fatal(err)
			sa.(*unix.SockaddrInet6).ZoneId = uint32(i.Index)
		}
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	fatal(err)
	if how == "bound" {
		fatal(unix.BindToDevice(fd, words[0]))
	}
	err = unix.Connect(fd, sa)
	for err == unix.EINTR || err == unix.EALREADY { // the runtime's signals
		err = unix.Connect(fd, sa)
	}
	if err != nil && err != unix.EISCONN {
		return fd, errnoName(err)
	}
	local, err := unix.Getsockname(fd)
	fatal(err)
	var st unix.Stat_t
	fatal(unix.Fstat(fd, &st))
	var addr net.TCPAddr
	switch l := local.(type) {
	case *unix.SockaddrInet4:
		addr = net.TCPAddr{IP: l.Addr[:], Port: l.Port}
	case *unix.SockaddrInet6:
		addr = net.TCPAddr{IP: l.Addr[:], Port: l.Port}
	}
	return fd, fmt.Sprintf("%s %d", addr.String(), st.Ino)
}

func errnoName(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "inside:", err)
		os.Exit(1)
	}
}
