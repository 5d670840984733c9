package mounts

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Renew restores the protections of plan that the host has lifted, and returns
// the targets it protected again. It is called by pid 1 after Apply.
//
// A mount point cannot be renamed or removed inside the sandbox. Outside it
// can: when a program of the host (git itself, for example) replaces
// .git/config by a new file, the kernel detaches our mount together with the
// old one, and the new file is bare. The outside half watches for that and
// asks for Renew.
func Renew(plan Plan) ([]string, error) {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	var renewed []string
	var failed []error
	for i := range plan {
		o := &plan[i]
		if o.Kind != Pin && o.Kind != Mask {
			continue
		}
		again, err := renewOne(root, o)
		switch {
		case err != nil && !(errors.Is(err, unix.ENOENT) && o.Flags&(IfThere|Optional) != 0):
			failed = append(failed, &Error{Op: *o, Err: err})
		case again:
			renewed = append(renewed, o.Target)
		}
	}
	return renewed, errors.Join(failed...)
}

func renewOne(root int, o *Op) (bool, error) {
	at, err := openIn(root, o.Target, o.Flags|NoFollow)
	if err != nil {
		return false, err
	}
	defer unix.Close(at)
	var st unix.Statx_t
	if err := unix.Statx(at, "", unix.AT_EMPTY_PATH, unix.STATX_TYPE, &st); err != nil {
		return false, err
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return false, nil
	}
	var tree int
	switch {
	case o.Kind == Pin:
		tree, err = cloneTree(at, o.Flags)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		tree, err = newFS("tmpfs", attributes(ReadOnly|NoExec), "size=4k", "mode=0555")
	default:
		// The empty file of Apply is gone with the stage. A device node on a
		// mount without devices can be opened by nobody.
		tree, err = cloneAt(root, "dev/null", ReadOnly|NoExec)
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(tree)
	return true, attach(tree, at)
}
