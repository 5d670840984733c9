package procs

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/kerneltest"
)

const roleVar = "PROCS_TEST_ROLE"

func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv(roleVar)]
	if !ok {
		os.Exit(m.Run())
	}
	role()
}

// roles are what a child of a test may be. All end with their parent's pipe.
var roles = map[string]func(){
	"wait": wait,
	"undumpable": func() {
		must(unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
		wait()
	},
	"parent": func() { // has a child that waits
		c := child("wait")
		c.Stdin, c.Stdout = os.Stdin, os.Stdout
		must(c.Start())
		c.Wait()
	},
	"spin": func() { // makes processes and threads without end
		for {
			c := exec.Command("/proc/self/exe")
			c.Env = append(os.Environ(), roleVar+"=end")
			c.Run()
		}
	},
	"end":  func() {},
	"fail": func() { os.Exit(7) },
	"ownTable": func() { // a thread alone has the socket
		runtime.LockOSThread()
		done := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			must(unix.Unshare(unix.CLONE_FILES))
			close(done)
			select {}
		}()
		<-done
		// This thread's table goes to the others, the spun-off one's stays.
		must(unix.Close(3))
		wait()
	},
}

func wait() {
	fmt.Println("ready", os.Getpid())
	io.Copy(io.Discard, os.Stdin)
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(role string) *exec.Cmd {
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), roleVar+"="+role)
	c.Stderr = os.Stderr
	return c
}

// launch starts a child that waits and returns the number it says it has.
func launch(t *testing.T, role string, files ...*os.File) (pid int) {
	t.Helper()
	c := child(role)
	c.ExtraFiles = files
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		c.Process.Kill()
		c.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(line, "ready %d", &pid); err != nil {
		t.Fatalf("the child said %q", line)
	}
	return pid
}

// asPid1 runs body as the launcher runs: pid 1 with its own /proc, the
// capabilities of its user namespace, and that id inside.
func asPid1(t *testing.T, id int, body func(t *testing.T)) {
	t.Helper()
	kerneltest.Require(t, kerneltest.UserNS)
	kerneltest.Child{
		Ordinary: true, Ambient: true, InsideID: id,
		Clone: syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
	}.Run(t, func(t *testing.T) {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "hidepid=2"); err != nil {
			t.Fatal(err)
		}
		// Children must not have the launcher's power: empty ambient set.
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
		body(t)
	})
}

// eachID runs body with the two maps in use: root inside, and an own id.
func eachID(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	for _, id := range []int{0, 1000} {
		t.Run("id"+strconv.Itoa(id), func(t *testing.T) { asPid1(t, id, body) })
	}
}

// socket returns an open socket as a file, and its inode.
func socket(t *testing.T) (*os.File, uint64) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { f.Close() })
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return f, st.Ino
}

// eventually waits for a condition that another process brings about.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
