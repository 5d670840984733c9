package image

import (
	"os"
	"path"
	"slices"
	"strings"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// Command returns what to run. Words given by the person are run exactly as
// they are, without the image's ENTRYPOINT: that is the 0.1.x contract.
// Without words it is the image's own ENTRYPOINT and CMD. An empty result
// means that nobody said anything; see Shell. What 0.1.x does for a sandbox
// created without a command is Shell too; the caller decides.
func Command(c Config, args []string) []string {
	if len(args) > 0 {
		return slices.Clone(args)
	}
	return slices.Concat(c.Entrypoint, c.Cmd)
}

// WithEntrypoint returns what a container engine would run for the words: the
// image's ENTRYPOINT before them.
func WithEntrypoint(c Config, args []string) []string {
	if len(args) > 0 {
		return slices.Concat(c.Entrypoint, args)
	}
	return slices.Concat(c.Entrypoint, c.Cmd)
}

// Shell returns the path of the image's best shell, or an empty string.
func Shell(rootfs string) string {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return ""
	}
	defer root.Close()
	for _, sh := range []string{"/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh", "/bin/ash", "/busybox/sh"} {
		if runnable(root, sh[1:], 0) {
			return sh
		}
	}
	return ""
}

// runnable looks a program up inside the image. An absolute link, which
// os.Root refuses, is followed by hand within the image.
func runnable(root *os.Root, name string, depth int) bool {
	info, err := root.Stat(name)
	if err == nil {
		return info.Mode().IsRegular() && info.Mode()&0o111 != 0
	}
	target, lerr := root.Readlink(name)
	if lerr != nil || depth > 8 {
		return false
	}
	if !path.IsAbs(target) {
		target = path.Join("/", path.Dir(name), target)
	}
	return runnable(root, path.Clean(target)[1:], depth+1)
}

// Workspace is where a sandbox works: the image's WORKDIR, or the managed
// directory if that is empty or the root.
func Workspace(c Config) (string, error) {
	switch c.WorkingDir {
	case "", "/":
		return ManagedWorkspace, nil
	}
	w := c.WorkingDir
	if !path.IsAbs(w) || path.Clean(w) != strings.TrimSuffix(w, "/") ||
		strings.ContainsFunc(w, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return "", fault.New(fault.FailedPrecondition, "the image's WorkingDir %.200q is not a clean absolute path", w)
	}
	w = path.Clean(w)
	for _, system := range []string{"/proc", "/sys", "/dev", "/run", brand.ReservedRoot, "/etc"} {
		if w == system || strings.HasPrefix(w, system+"/") {
			return "", fault.New(fault.FailedPrecondition, "the image's WorkingDir %.200q cannot be a workspace", w)
		}
	}
	return w, nil
}

// ManagedWorkspace is the workspace of an image that names none.
const ManagedWorkspace = "/sandbox"

func envName(k string) bool {
	for i, r := range k {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_'
		if !letter && (i == 0 || !(r >= '0' && r <= '9' || r == '.' || r == '-')) {
			return false
		}
	}
	return k != ""
}

const (
	envMax      = 1024
	envValueMax = 128 << 10 // MAX_ARG_STRLEN
)

// Environ merges the image's ENV below what the caller sets: base wins. It
// returns the names of the image's variables that were dropped: those that
// would speak to us or for us (our own prefix, proxies, agents' sockets) and
// those that are malformed. Image variables never reach a process of ours.
func Environ(c Config, base []string) (env, dropped []string) {
	set := map[string]bool{}
	for _, kv := range base {
		k, _, _ := strings.Cut(kv, "=")
		set[k] = true
	}
	last := map[string]string{}
	var order []string
	for i, kv := range c.Env {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || i >= envMax || !envName(k) || len(kv) > envValueMax || strings.IndexByte(v, 0) >= 0 || denied(k) {
			dropped = append(dropped, k)
			continue
		}
		if _, again := last[k]; !again {
			order = append(order, k)
		}
		last[k] = v
	}
	for _, k := range order {
		if !set[k] {
			env = append(env, k+"="+last[k])
		}
	}
	return append(env, base...), dropped
}

// denied are variables that an image may not set, with the reason.
func denied(k string) bool {
	upper := strings.ToUpper(k)
	switch {
	case strings.HasPrefix(upper, brand.EnvPrefix): // ours
	case strings.HasSuffix(upper, "_PROXY"): // the builder's network, not ours
	case strings.HasPrefix(upper, "GCE_METADATA_"), upper == "METADATA_SERVER_DETECTION": // set by the credential side
	case slices.Contains([]string{"SSH_AUTH_SOCK", "GPG_AGENT_INFO", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY",
		"WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "DOCKER_HOST", "CONTAINER_HOST", "NOTIFY_SOCKET", "LISTEN_FDS",
		"LISTEN_PID", "LISTEN_FDNAMES"}, upper): // places of a host that the image does not know
	default:
		return false
	}
	return true
}
