package view

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/mounts"
)

// root is a directory of the host's system that every sandbox on the host base
// sees, read-only.
type root struct{ path, why string }

var systemRoots = []root{
	{"/usr", "programs and libraries"},
	{"/bin", "programs, where not merged with /usr"},
	{"/sbin", "programs, where not merged with /usr"},
	{"/lib", "libraries, where not merged with /usr"},
	{"/lib32", "libraries of the second architecture"},
	{"/lib64", "the dynamic loader"},
	{"/libx32", "libraries of the third architecture"},
	{"/opt", "programs of third parties"},
	{"/etc", "settings of programs; what is private or about the host is covered"},
	{"/nix/store", "programs on NixOS; not the daemon's socket beside it"},
	{"/gnu/store", "programs on Guix"},
	{"/run/current-system", "the link through which NixOS finds its programs"},
	{"/var/lib/ca-certificates", "certificate bundle on SUSE, reached by a link from /etc"},
}

// private lists what of the shown directories nobody inside needs. A path is
// covered only if the caller could read it: what the host's own permissions
// shut is shut inside as well.
var private = []root{
	{"/etc/shadow", "password hashes"}, {"/etc/shadow-", "password hashes"},
	{"/etc/gshadow", "password hashes"}, {"/etc/gshadow-", "password hashes"},
	{"/etc/master.passwd", "password hashes"}, {"/etc/security/opasswd", "password hashes"},
	{"/etc/ssl/private", "private keys"}, {"/etc/pki/tls/private", "private keys"}, {"/etc/letsencrypt", "private keys"},
	{"/etc/krb5.keytab", "keys"}, {"/etc/wireguard", "keys"}, {"/etc/openvpn", "keys"}, {"/etc/ipsec.secrets", "keys"},
	{"/etc/ppp/chap-secrets", "passwords"}, {"/etc/ppp/pap-secrets", "passwords"}, {"/etc/samba/private", "passwords"},
	{"/etc/sudoers", "who may become whom"}, {"/etc/sudoers.d", "who may become whom"},
	{"/etc/NetworkManager/system-connections", "passwords of networks"}, {"/etc/netplan", "passwords of networks"},
	{"/etc/wpa_supplicant", "passwords of networks"}, {"/etc/crypttab", "keys of disks"}, {"/etc/git-credentials", "passwords"},
	{"/etc/kubernetes", "keys of a cluster"}, {"/etc/rancher", "keys of a cluster"},
	{"/etc/docker", "keys of a daemon"}, {"/etc/cloud", "secrets of first boot"},
	{"/opt/containerd", "state of a daemon"},
}

// base adds the root and the system's directories.
func (b *building) base() error {
	switch {
	case b.spec.Base.host():
		b.tmpfsRoot()
		return b.hostBase()
	case b.spec.Base.Dir != "":
		b.tmpfsRoot()
		return b.dirBase()
	default:
		s := b.spec.Base
		if s.Upper == "" || s.Work == "" {
			return fault.New(fault.Internal, "an image needs a directory for what the sandbox changes")
		}
		b.add(mounts.OverlayRoot(s.Lower, s.Upper, s.Work, "the image, and what this sandbox changed of it"))
		b.see("/", s.Lower[0], true)
		return nil
	}
}

func (b *building) tmpfsRoot() {
	b.add(mounts.Op{Kind: mounts.Tmpfs, Target: "/", Size: 1 << 20, Mode: 0o755, Why: "an empty root: only what is named below appears"})
}

func (b *building) hostBase() error {
	roots := b.spec.sysroots
	if roots == nil {
		roots = systemRoots
	}
	for _, r := range roots {
		if err := b.showTop(r.path, r.path, r.why); err != nil {
			return err
		}
	}
	for _, p := range private {
		if readable(p.path) {
			b.mask(p.path, p.why)
		}
	}
	if os.Geteuid() == 0 && !b.spec.noScan {
		b.maskRootsOwn("/etc")
		b.maskRootsOwn("/opt")
	}
	return nil
}

// showTop shows the host's path read-only, copying a symbolic link as a link.
func (b *building) showTop(host, inside, why string) error {
	info, err := os.Lstat(host)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fault.New(fault.FailedPrecondition, "cannot look at %q", host).Cause(err)
	case info.Mode()&os.ModeSymlink != 0:
		text, err := os.Readlink(host)
		if err != nil {
			return fault.New(fault.FailedPrecondition, "cannot read the link %q", host).Cause(err)
		}
		b.add(mounts.Op{Kind: mounts.Symlink, Source: text, Target: inside, Why: why})
	case info.IsDir() || info.Mode().IsRegular():
		b.add(mounts.Op{Kind: mounts.Bind, Source: host, Target: inside, Flags: mounts.ReadOnly, Why: why})
		b.see(inside, host, false)
	}
	return nil
}

// dirBase shows the entries of a root file system, except those that are ours.
func (b *building) dirBase() error {
	dir, err := filepath.EvalSymlinks(b.spec.Base.Dir)
	if err != nil {
		return fault.New(fault.NotFound, "root file system %q cannot be opened", b.spec.Base.Dir).Cause(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fault.New(fault.NotFound, "root file system %q cannot be read", b.spec.Base.Dir).Cause(err)
	}
	if len(entries) > 256 {
		return fault.New(fault.InvalidArgument, "%q has %d entries: this is not a root file system", b.spec.Base.Dir, len(entries))
	}
	found := false
	for _, e := range entries {
		switch e.Name() {
		case "proc", "dev", "sys", "tmp", "run":
			continue
		case "bin", "usr":
			found = true
		}
		if err := b.showTop(join(dir, e.Name()), "/"+e.Name(), "part of the root file system"); err != nil {
			return err
		}
	}
	if !found {
		return fault.New(fault.InvalidArgument, "%q is not a root file system: it has neither bin nor usr", b.spec.Base.Dir)
	}
	return nil
}

// maskRootsOwn covers what only root or a group may read. A sandbox started by
// root keeps root's number, to which the host's permissions say yes.
func (b *building) maskRootsOwn(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // not there, or shut
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Mode()&os.ModeSymlink != 0 {
			continue
		}
		want := os.FileMode(0o004)
		if info.IsDir() {
			want = 0o005
		}
		if info.Mode().Perm()&want != want {
			b.mask(join(dir, e.Name()), "only root may read it on the host")
		}
	}
}

func (b *building) mask(path, why string) {
	for _, o := range b.plan {
		if o.Kind == mounts.Mask && o.Target == path {
			return
		}
	}
	b.add(mounts.Op{Kind: mounts.Mask, Target: path, Flags: mounts.IfThere, Why: why})
}

func readable(path string) bool { return unix.Access(path, unix.R_OK) == nil }
