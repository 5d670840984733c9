package image

import (
	"fmt"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"openshell.dev/openshell/internal/fault"
)

// DefaultID is the user and group of an image that names no USER.
const DefaultID = 1000

// User is a resolved identity inside the image.
type User struct {
	Name   string // as in the account file, or the number
	UID    uint32
	GID    uint32
	Groups []uint32 // of a named user: all groups that list it, and GID; sorted
	Home   string   // of the account entry, or empty
	Shell  string   // of the account entry, or empty
}

const (
	accountMax   = 1 << 20 // bytes of an account file
	accountLine  = 8 << 10
	accountField = 1 << 10
)

// ResolveUser finds the identity that an image's USER means: a name or a
// number, with or without :group. Only the image's own /etc/passwd and
// /etc/group are read, and strictly: plain files, no duplicates. An empty
// user is DefaultID. Root, by whatever spelling, is refused. Errors are
// faults.
func ResolveUser(rootfs, user string) (User, error) {
	if user == "" {
		return User{Name: strconv.Itoa(DefaultID), UID: DefaultID, GID: DefaultID}, nil
	}
	name, group, hasGroup := strings.Cut(user, ":")
	if err := component(name); err != nil {
		return User{}, userFault(user, "%v", err)
	}
	if hasGroup {
		if group == "" {
			return User{}, userFault(user, "the group after the colon is empty")
		}
		if err := component(group); err != nil {
			return User{}, userFault(user, "%v", err)
		}
	}
	if id, numeric := parseID(name); numeric && id == 0 {
		return User{}, rootFault(user)
	}
	acc, err := readAccounts(rootfs)
	if err != nil {
		return User{}, userFault(user, "%v", err)
	}
	u, entry, err := acc.user(name)
	if err != nil {
		return User{}, userFault(user, "%v", err)
	}
	switch {
	case hasGroup:
		u.GID, err = acc.group(group)
	case entry:
	default:
		err = fmt.Errorf("the number has no entry in /etc/passwd, so its group is not known")
		return User{}, userFault(user, "%v", err).Hint("USER %s:%s", name, name)
	}
	if err != nil {
		return User{}, userFault(user, "%v", err)
	}
	if u.UID == 0 || u.GID == 0 {
		return User{}, rootFault(user)
	}
	if _, numeric := parseID(name); !numeric {
		if u.Groups, err = acc.groupsOf(u); err != nil {
			return User{}, userFault(user, "%v", err)
		}
	}
	return u, nil
}

func userFault(user, format string, args ...any) *fault.Error {
	return fault.New(fault.FailedPrecondition, "the image's USER %.100q cannot be used: %s", user, fmt.Sprintf(format, args...)).
		Because("IMAGE_USER")
}

func rootFault(user string) error {
	return userFault(user, "it is root").
		Hint("set process.run_as_user and process.run_as_group in the policy, or USER in the image")
}

func component(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("the user is empty")
	case len(s) > 1024:
		return fmt.Errorf("it is too long")
	case strings.TrimSpace(s) != s, strings.Contains(s, ":"):
		return fmt.Errorf("it has spaces or colons around it")
	case strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f || r == utf8.RuneError }):
		return fmt.Errorf("it has control characters")
	}
	return nil
}

// parseID reads a decimal id. The second result is false for a name.
func parseID(s string) (uint32, bool) {
	if strings.Trim(s, "0123456789") != "" || s == "" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return math.MaxUint32, true
	}
	return uint32(n), true
}

func usableID(n uint32) error {
	if n == math.MaxUint32 {
		return fmt.Errorf("the number is out of range")
	}
	return nil
}

// accounts are the account files of an image, by line.
type accounts struct {
	passwd, groups [][]string
}

func readAccounts(rootfs string) (*accounts, error) {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var a accounts
	for _, f := range []struct {
		name   string
		fields int
		into   *[][]string
	}{{"etc/passwd", 7, &a.passwd}, {"etc/group", 4, &a.groups}} {
		data, err := readPlainAt(root, f.name, accountMax)
		if err != nil {
			return nil, err
		}
		if !utf8.Valid(data) {
			return nil, fmt.Errorf("/%s is not UTF-8", f.name)
		}
		if *f.into, err = accountLines(f.name, string(data), f.fields); err != nil {
			return nil, err
		}
	}
	return &a, nil
}

func accountLines(file, data string, fields int) ([][]string, error) {
	var out [][]string
	n := 0
	for line := range strings.SplitSeq(data, "\n") {
		n++
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if len(line) > accountLine {
			return nil, fmt.Errorf("/%s:%d is too long", file, n)
		}
		f := strings.Split(line, ":")
		if len(f) != fields {
			continue // cannot match; a match must be whole
		}
		if slices.ContainsFunc(f[:3], func(s string) bool { return len(s) > accountField }) {
			return nil, fmt.Errorf("/%s:%d has a field that is too long", file, n)
		}
		out = append(out, f)
	}
	return out, nil
}

// user finds a passwd entry by name or number. entry is false for a number
// that has none.
func (a *accounts) user(name string) (u User, entry bool, err error) {
	id, numeric := parseID(name)
	if numeric {
		if err := usableID(id); err != nil {
			return User{}, false, err
		}
	}
	found := 0
	for _, f := range a.passwd {
		uid, ok := parseID(f[2])
		if !ok || (numeric && uid != id) || (!numeric && f[0] != name) {
			continue
		}
		gid, gok := parseID(f[3])
		if !gok || usableID(uid) != nil || usableID(gid) != nil {
			return User{}, false, fmt.Errorf("its entry in /etc/passwd has no usable numbers")
		}
		if found++; found > 1 {
			return User{}, false, fmt.Errorf("it is ambiguous: /etc/passwd has it twice")
		}
		u = User{Name: f[0], UID: uid, GID: gid, Home: cleanHome(f[5]), Shell: f[6]}
	}
	if found == 1 {
		return u, true, nil
	}
	if numeric {
		return User{Name: name, UID: id}, false, nil
	}
	return User{}, false, fmt.Errorf("it was not found in the image's /etc/passwd")
}

func (a *accounts) group(name string) (uint32, error) {
	if id, numeric := parseID(name); numeric {
		return id, usableID(id)
	}
	var gid uint32
	found := 0
	for _, f := range a.groups {
		if f[0] != name {
			continue
		}
		id, ok := parseID(f[2])
		if !ok || usableID(id) != nil {
			return 0, fmt.Errorf("the group's entry in /etc/group has no usable number")
		}
		if found++; found > 1 {
			return 0, fmt.Errorf("the group is ambiguous: /etc/group has it twice")
		}
		gid = id
	}
	if found == 0 {
		return 0, fmt.Errorf("the group was not found in the image's /etc/group")
	}
	return gid, nil
}

func (a *accounts) groupsOf(u User) ([]uint32, error) {
	out := []uint32{u.GID}
	for _, f := range a.groups {
		if !slices.Contains(strings.Split(f[3], ","), u.Name) {
			continue
		}
		gid, ok := parseID(f[2])
		if !ok || usableID(gid) != nil {
			continue
		}
		if gid == 0 {
			return nil, fmt.Errorf("it is a member of the group root")
		}
		out = append(out, gid)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func cleanHome(h string) string {
	if !path.IsAbs(h) || strings.ContainsFunc(h, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return ""
	}
	return path.Clean(h)
}
