package fetched

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Get fetches everything that is missing into dir, and goes on where
// something cannot be had: the error names all that is missing in the end.
func Get(ctx context.Context, dir string, log io.Writer) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	errs := []error{systemPackages(ctx, log)}
	for _, major := range []int{22, 24, 26} {
		if pkg, version, ok := NodePackage(major); ok {
			_, err := NPM(ctx, dir, log, pkg+"@"+version)
			errs = append(errs, err)
		}
	}
	for _, pkg := range []string{ciao, OpenClaw} {
		_, err := NPM(ctx, dir, log, pkg)
		errs = append(errs, err)
	}
	for _, command := range Agents() {
		_, err := NPM(ctx, dir, log, agents[command])
		errs = append(errs, err)
	}
	for _, set := range [][]string{python, sdk} {
		_, err := once(setDir(dir, "pip", set...), log, func(tmp string) error {
			return client(ctx, tmp, SystemPython, append([]string{"-m", "pip", "install", "--quiet", "--no-warn-script-location",
				"--disable-pip-version-check", "--only-binary=:all:", "--target", tmp}, set...)...)
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// rebuilt are the packages whose own script must run, because it puts the
// program of this machine's kind in its place. No other script is run.
var rebuilt = map[string]bool{"@anthropic-ai/claude-code": true, "opencode-ai": true}

// NPM installs one package (name@version) with what it depends on, the
// programs for this machine included, and returns the directory that holds
// node_modules.
func NPM(ctx context.Context, dir string, log io.Writer, pkg string) (string, error) {
	return once(setDir(dir, "npm", pkg), log, func(tmp string) error {
		err := client(ctx, tmp, "npm", "install", "--prefix", tmp, "--no-audit", "--no-fund", "--ignore-scripts",
			"--omit=dev", "--loglevel=error", pkg)
		if err != nil {
			return err
		}
		name := pkg[:strings.LastIndexByte(pkg, '@')]
		if rebuilt[name] {
			return client(ctx, tmp, "npm", "rebuild", "--prefix", tmp, "--loglevel=error", name)
		}
		return nil
	})
}

// once makes a directory that is there whole or not at all, by one process at
// a time.
func once(at string, log io.Writer, fill func(tmp string) error) (string, error) {
	if _, err := os.Stat(at); err == nil {
		return at, nil // whoever made it: this account need not be able to
	}
	lock, err := os.OpenFile(at+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(at); err == nil {
		return at, nil
	}
	fmt.Fprintf(log, "fetching %s\n", filepath.Base(at))
	tmp, err := os.MkdirTemp(filepath.Dir(at), ".new-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := fill(tmp); err != nil {
		return "", err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	return at, os.Rename(tmp, at)
}

func client(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%.2000s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// systemPackages installs what the system's package client has, where this
// account may.
func systemPackages(ctx context.Context, log io.Writer) error {
	var missing []string
	for _, s := range system {
		if _, err := exec.LookPath(s.command); err != nil {
			missing = append(missing, s.pkg)
		}
	}
	if _, err := os.Stat(SystemPython); err == nil {
		if exec.CommandContext(ctx, SystemPython, "-m", "pip", "--version").Run() != nil {
			missing = append(missing, "python3-pip")
		}
	} else {
		missing = append(missing, "python3-pip")
	}
	if len(missing) == 0 {
		return nil
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil || os.Getuid() != 0 {
		return fmt.Errorf("install what is missing: %s", strings.Join(missing, " "))
	}
	fmt.Fprintf(log, "installing %s\n", strings.Join(missing, " "))
	if err := client(ctx, "/", apt, "update", "-q"); err != nil {
		return err
	}
	return client(ctx, "/", "env", append([]string{"DEBIAN_FRONTEND=noninteractive", apt, "install", "-y", "-q", "--no-install-recommends"}, missing...)...)
}
