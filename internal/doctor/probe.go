package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/landlock"
	"openshell.dev/openshell/internal/netns"
	"openshell.dev/openshell/internal/seccomp"
)

// What the child tries, in this order.
const (
	tryMount    = "mount"
	tryBind     = "bind"
	tryProc     = "proc"
	tryPTS      = "devpts"
	tryOverlay  = "overlay"
	tryNetwork  = "network"
	tryFence    = "fence"
	tryLandlock = "landlock"
	tryFilter   = "filter"
	tryNotify   = "notify"
	tryTime     = "time"
)

// Probe tries everything in the process it runs in, which Run made for it,
// and writes what each try said ("" is success). Its process must end after.
func Probe(w io.Writer) error {
	if os.Getpid() != 1 {
		return errors.New("this is run by the doctor only, in namespaces of its own")
	}
	said := map[string]string{}
	note := func(name string, err error) bool {
		said[name] = ""
		if err != nil {
			said[name] = err.Error()
		}
		return err == nil
	}
	if note(tryMount, scratch()) {
		note(tryBind, bind())
		note(tryProc, attempt("mount /proc", unix.Mount("proc", at("proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "hidepid=2")))
		note(tryPTS, attempt("mount devpts", unix.Mount("devpts", at("pts"), "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")))
		note(tryOverlay, overlay())
	}
	if rep, err := netns.Setup(); note(tryNetwork, err) {
		socks, err := netns.Listen(rep)
		if err == nil {
			err = socks.LoadFence()
			socks.Close()
		}
		note(tryFence, err)
	}
	note(tryTime, onThread(func() error { return attempt("unshare", unix.Unshare(unix.CLONE_NEWTIME)) }))
	note(tryLandlock, onThread(func() error {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		_, err := landlock.Restrict(landlock.Ruleset{Paths: []landlock.Rule{{Path: "/usr", Access: landlock.ReadExec, Follow: true}}}, landlock.HardRequirement)
		return err
	}))
	note(tryFilter, onThread(func() error {
		filter, err := seccomp.Default().Assemble()
		if err != nil {
			return err
		}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		return seccomp.Install(filter)
	}))
	note(tryNotify, onThread(notify))
	return json.NewEncoder(w).Encode(said)
}

// onThread runs f on a thread that ends with it: what f restricts, nobody
// else feels.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		done <- f()
	}()
	return <-done
}

const scratchDir = "/tmp"

func at(name string) string { return scratchDir + "/" + name }

func attempt(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// scratch makes the mounts private and a tmpfs to work in.
func scratch() error {
	if err := attempt("make the mounts private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
		return err
	}
	if err := attempt("mount a tmpfs", unix.Mount("tmpfs", scratchDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=1m,mode=700")); err != nil {
		return err
	}
	for _, name := range []string{"proc", "pts", "bound", "lower", "upper", "work", "merged"} {
		if err := os.Mkdir(at(name), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// bind shows a directory of the host read-only, by the calls of Linux 5.12.
func bind() error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, "/usr", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return attempt("open_tree", err)
	}
	defer unix.Close(tree)
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, attr); err != nil {
		return attempt("mount_setattr", err)
	}
	return attempt("move_mount", unix.MoveMount(tree, "", unix.AT_FDCWD, at("bound"), unix.MOVE_MOUNT_F_EMPTY_PATH))
}

// overlay stacks two directories and writes through them.
func overlay() error {
	options := strings.Join([]string{"lowerdir=" + at("lower"), "upperdir=" + at("upper"), "workdir=" + at("work"), "userxattr"}, ",")
	if err := attempt("mount an overlay", unix.Mount("overlay", at("merged"), "overlay", 0, options)); err != nil {
		return err
	}
	return attempt("write into an overlay", os.WriteFile(at("merged/file"), nil, 0o600))
}
