package imagebuild

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Program puts programs of the host, found on PATH unless they are paths,
// with their loader and every library they name. A library that is opened by
// name at run time is not found this way: add it with Library.
func (t *Tree) Program(names ...string) *Tree {
	for _, name := range names {
		file, err := exec.LookPath(name)
		if err != nil {
			return t.fail("program %s: %w", name, err)
		}
		to := file
		if !strings.HasPrefix(at(file), "usr/") {
			to = "/usr/bin/" + filepath.Base(file)
		}
		t.Binary(to, file)
	}
	return t
}

// Binary puts one program of the host at a path of the image.
func (t *Tree) Binary(name, host string) *Tree {
	t.Copy(name, host)
	if n, ok := t.nodes[at(name)]; ok {
		n.mode |= 0o111
		t.nodes[at(name)] = n
	}
	return t.needs(host)
}

// Library puts a shared library, by name, with what it needs.
func (t *Tree) Library(names ...string) *Tree {
	for _, name := range names {
		file, err := findLibrary(name, nil)
		if err != nil {
			return t.fail("library %s: %w", name, err)
		}
		t.library(file)
	}
	return t
}

func (t *Tree) library(file string) *Tree {
	if t.Has(file) {
		return t
	}
	return t.Copy(file, file).needs(file)
}

// needs puts the loader and the libraries that an ELF file names. Anything
// else, such as a script, needs nothing.
func (t *Tree) needs(host string) *Tree {
	f, err := elf.Open(host)
	if err != nil {
		if _, notELF := errors.AsType[*elf.FormatError](err); notELF {
			return t
		}
		return t.fail("reading %s: %w", host, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		buf := make([]byte, p.Filesz)
		if _, err := p.ReadAt(buf, 0); err != nil {
			return t.fail("reading the loader of %s: %w", host, err)
		}
		loader := strings.TrimRight(string(buf), "\x00")
		if !t.Has(loader) {
			t.Copy(loader, loader)
		}
	}
	libs, err := f.ImportedLibraries()
	if err != nil {
		return t.fail("reading the libraries of %s: %w", host, err)
	}
	var own []string
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		paths, err := f.DynString(tag)
		if err != nil {
			continue
		}
		for _, p := range paths {
			for d := range strings.SplitSeq(p, ":") {
				own = append(own, strings.NewReplacer("$ORIGIN", filepath.Dir(host), "${ORIGIN}", filepath.Dir(host)).Replace(d))
			}
		}
	}
	for _, lib := range libs {
		file, err := findLibrary(lib, own)
		if err != nil {
			return t.fail("%s needs %s: %w", host, lib, err)
		}
		t.library(file)
	}
	return t
}

// libraryDirs are where the loader looks without a configuration.
func libraryDirs() []string {
	dirs := []string{"/lib64", "/usr/lib64", "/lib", "/usr/lib"}
	if multi, err := filepath.Glob("/usr/lib/*-linux-gnu"); err == nil {
		dirs = append(multi, dirs...)
	}
	return dirs
}

func findLibrary(name string, first []string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	for _, d := range append(first, libraryDirs()...) {
		file := filepath.Join(d, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return file, nil
		}
	}
	return "", fmt.Errorf("not found in %v", libraryDirs())
}

// basePrograms are what a shell script expects. One that the host lacks is
// left out.
var basePrograms = strings.Fields(`bash dash ls cat cp mv rm mkdir rmdir ln chmod touch head tail wc sort uniq tr cut
	paste tee grep sed awk find xargs env id whoami uname date sleep true false echo printf test pwd basename dirname
	readlink realpath stat df du ps kill nice timeout tar gzip mktemp seq od hexdump sha256sum stty tty getent hostname
	which expr yes nproc mkfifo cmp diff`)

// Base returns a small system: a shell, the usual tools, accounts, and the
// C library's own needs. The account sandbox is 1000:1000.
func Base() *Tree {
	t := NewTree()
	for dir := range merged {
		t.Dir("/usr/"+dir, 0o755)
		t.nodes[dir] = treeNode{mode: os.ModeSymlink | 0o777, link: "usr/" + dir}
	}
	for _, p := range basePrograms {
		if _, err := exec.LookPath(p); err == nil {
			t.Program(p)
		}
	}
	for _, sh := range []string{"bash", "dash"} {
		if !t.Has("/usr/bin/" + sh) {
			return t.fail("the host has no %s", sh)
		}
	}
	t.Symlink("/usr/bin/sh", "dash")
	for _, d := range []string{"/proc", "/sys", "/dev", "/run", "/root", "/home", "/var/log", "/opt", "/mnt", "/sandbox", "/etc/openshell"} {
		t.Dir(d, 0o755)
	}
	t.Dir("/tmp", 0o777|os.ModeSticky)
	t.Dir("/var/tmp", 0o777|os.ModeSticky)
	t.File("/etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/bash\nsandbox:x:1000:1000:sandbox:/sandbox:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n")
	t.File("/etc/group", 0o644, "root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n")
	t.File("/etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\n")
	t.File("/etc/profile", 0o644, "PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}\nexport PATH\n")
	t.File("/etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost\n")
	t.File("/etc/os-release", 0o644, "ID=imagebuild\nNAME=\"imagebuild\"\nPRETTY_NAME=\"test image made of this machine\"\n")
	for _, f := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/openssl.cnf"} {
		if _, err := os.Stat(f); err == nil {
			t.Copy(f, f)
		}
	}
	return t
}
