package landlock

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Access is a set of plain rights. The zero value is none and is refused in a
// rule.
type Access uint8

// The rights, and the classes policies speak of. List on "/" alone makes
// `ls /` work and opens no file: the right to list goes down the whole tree.
const (
	List    Access = 1 << iota // read directories
	Read                       // read files
	Exec                       // execute files
	Write                      // write, truncate, make, remove, rename, link
	Device                     // ioctl on devices
	Connect                    // connect to Unix sockets by path (ABI 9)

	ReadOnly  = List | Read
	ReadExec  = List | Read | Exec
	ReadWrite = ReadExec | Write | Device | Connect
)

var accessNames = [...]struct {
	bit  Access
	name string
}{{List, "list"}, {Read, "read"}, {Exec, "execute"}, {Write, "write"}, {Device, "device"}, {Connect, "connect"}}

// String returns the rights joined by "+".
func (a Access) String() string {
	s := ""
	for _, n := range accessNames {
		if a&n.bit != 0 {
			s += "+" + n.name
		}
	}
	if s == "" {
		return "none"
	}
	return s[1:]
}

const writeRights = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR |
	unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR |
	unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO |
	unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER |
	unix.LANDLOCK_ACCESS_FS_TRUNCATE

// fileRights are the rights that a rule on something other than a directory may
// carry.
const fileRights = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
	unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
	unix.LANDLOCK_ACCESS_FS_IOCTL_DEV | unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX

func (a Access) rights() uint64 {
	var r uint64
	for _, m := range [...]struct {
		bit    Access
		rights uint64
	}{
		{List, unix.LANDLOCK_ACCESS_FS_READ_DIR},
		{Read, unix.LANDLOCK_ACCESS_FS_READ_FILE},
		{Exec, unix.LANDLOCK_ACCESS_FS_EXECUTE},
		{Write, writeRights},
		{Device, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV},
		{Connect, unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX},
	} {
		if a&m.bit != 0 {
			r |= m.rights
		}
	}
	return r
}

var (
	errNoAccess = errors.New("the rule gives no right, or one we do not know")
	errNoRight  = errors.New("nothing of the right applies to this kind of file")
)

// reason puts an error of opening in the words of the contract.
func reason(err error) string {
	switch {
	case errors.Is(err, unix.ENOENT):
		return "path does not exist"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return "permission denied"
	case errors.Is(err, unix.ELOOP):
		return "is or leads over a symbolic link"
	case errors.Is(err, unix.ENAMETOOLONG):
		return "path name too long"
	case errors.Is(err, unix.ENOTDIR):
		return "path component is not a directory"
	case errors.Is(err, errNoAccess), errors.Is(err, errNoRight):
		return err.Error()
	}
	return "unexpected error"
}
