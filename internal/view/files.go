package view

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/mounts"
)

const (
	// Address is where the sandbox finds its proxy and its resolver.
	Address = "10.200.0.1"
	own     = "10.200.0.2"
)

// files adds the small files in which a system says who and where it is.
func (b *building) files() error {
	w := b.spec.Who
	host := b.spec.Hostname
	resolv := b.spec.Resolv
	if resolv == "" {
		resolv = "# the resolver of the sandbox: it answers the names of the policy\nnameserver " + Address + "\n"
	}
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" + own + "\t" + host + "\n" + b.spec.Hosts
	passwd := []string{"root:x:0:0:root:/:/sbin/nologin", "nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin"}
	group := []string{"root:x:0:", "tty:x:5:", "nogroup:x:65534:"}
	if !b.spec.Base.host() {
		passwd = b.accounts("/etc/passwd", passwd)
		group = b.accounts("/etc/group", group)
	}
	ids := strconv.Itoa(w.UID) + ":" + strconv.Itoa(w.GID)
	passwd = withEntry(passwd, w.User+":x:"+ids+":"+w.User+":"+b.v.Home+":"+w.Shell, 2)
	group = withEntry(group, w.Group+":x:"+strconv.Itoa(w.GID)+":", 2)

	// machine-id: 32 digits that tell nothing about the host and differ
	// between sandboxes, because D-Bus and telemetry key on it.
	for _, f := range []struct{ path, text, why string }{
		{"/etc/passwd", strings.Join(passwd, "\n") + "\n", "who the sandbox runs as; no account of the host"},
		{"/etc/group", strings.Join(group, "\n") + "\n", "its group; no account of the host"},
		{"/etc/hosts", hosts, "names of the sandbox itself"},
		{"/etc/hostname", host + "\n", "the sandbox's own name"},
		{"/etc/resolv.conf", resolv, "the only resolver it can reach"},
		{"/etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\nethers: files\nrpc: files\n", "look-ups through daemons of the host would fail or leak"},
		{"/etc/machine-id", machineID(b.spec.ID) + "\n", "the host's would name the machine to the world"},
	} {
		if len(f.text) > mounts.MaxData {
			return fault.New(fault.InvalidArgument, "%s of the sandbox has %d bytes, more than %d", f.path, len(f.text), mounts.MaxData)
		}
		flags := mounts.Cover | mounts.IfThere
		if b.spec.Base.Upper != "" {
			flags = mounts.Cover // an image may lack it, and can be given it
		}
		b.add(mounts.Op{Kind: mounts.File, Target: f.path, Flags: flags, Mode: 0o644, Data: []byte(f.text), Why: f.why})
	}
	return nil
}

// accounts returns the lines of the image's own file, or fallback.
func (b *building) accounts(path string, fallback []string) []string {
	dirs := append([]string{b.spec.Base.Upper, b.spec.Base.Dir}, b.spec.Base.Lower...)
	for _, d := range dirs {
		if d == "" {
			continue
		}
		text, err := readIn(d, path, mounts.MaxData/2)
		if err != nil {
			continue
		}
		return strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	}
	return fallback
}

// withEntry replaces the line with the entry's name or number, or appends it.
func withEntry(lines []string, entry string, number int) []string {
	e := strings.Split(entry, ":")
	out := make([]string, 0, len(lines)+1)
	for _, l := range lines {
		f := strings.Split(l, ":")
		if len(f) > number && (f[0] == e[0] || f[number] == e[number]) {
			continue
		}
		out = append(out, l)
	}
	return append(out, entry)
}

// readIn reads a file of a foreign tree without leaving it.
func readIn(dir, path string, most int) ([]byte, error) {
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(at, "."+path, &how)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > int64(most) {
		return nil, fmt.Errorf("%s is not a file of at most %d bytes", path, most)
	}
	buf := make([]byte, most+1)
	n := 0
	for n < len(buf) {
		m, err := f.Read(buf[n:])
		n += m
		if err != nil {
			break
		}
	}
	if n > most {
		return nil, fmt.Errorf("%s grew over %d bytes", path, most)
	}
	return buf[:n], nil
}

// machineID derives 32 hexadecimal digits from the sandbox's id (FNV-1a, twice).
func machineID(id string) string {
	sum := func(salt string) uint64 {
		h := uint64(14695981039346656037)
		for _, c := range []byte(brand.Name + salt + id) {
			h = (h ^ uint64(c)) * 1099511628211
		}
		return h
	}
	return fmt.Sprintf("%016x%016x", sum("a"), sum("b"))
}
