package doctor

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/landlock"
)

// judge turns what was seen into findings. It is pure.
func judge(f *facts) []Finding {
	out := []Finding{f.userNamespaces()}
	if f.clone == nil {
		out = append(out, f.mounts(), f.overlays(), f.network(), f.packetRules(), f.filter(), f.notification(), f.timeNamespace())
	}
	out = append(out, f.fileRules())
	out = append(out, f.limitLines()...)
	out = append(out, f.space(), f.files())
	if f.tried {
		out = append(out, f.whole())
	}
	return out
}

func present(name, format string, args ...any) Finding {
	return Finding{Name: name, State: Present, Detail: fmt.Sprintf(format, args...)}
}

// said returns what a try of the child said, and whether it succeeded.
func (f *facts) said(name string) (string, bool) {
	text, tried := f.probed[name]
	if !tried {
		if f.probeErr != nil {
			return f.probeErr.Error(), false
		}
		return "could not be tried", false
	}
	return text, text == ""
}

// profile is the AppArmor profile that lets our programs, and no others, have
// user namespaces on a host that restricts them.
func profile(dir string) string {
	return fmt.Sprintf(`sudo tee /etc/apparmor.d/%[1]s >/dev/null <<'EOF'
abi <abi/4.0>,
include <tunables/global>
profile %[1]s %[2]s/%[1]s{,-client,-gateway,-supervisor,-sandbox} flags=(unconfined) {
  userns,
}
EOF
sudo apparmor_parser -r /etc/apparmor.d/%[1]s`, brand.Name, dir)
}

const noSandbox = "no sandbox can be made by this account"

func (f *facts) userNamespaces() Finding {
	x := Finding{Name: "user namespaces", Consequence: noSandbox, Fatal: true}
	mount, mounted := f.said(tryMount)
	switch {
	case f.clone == nil && mounted:
		return present(x.Name, "made one as uid %d, with full rights inside", f.uid)
	case f.apparmor == 1 && (f.clone != nil || strings.Contains(mount, "denied") || strings.Contains(mount, "not permitted")):
		x.Detail = "AppArmor takes their rights away (kernel.apparmor_restrict_unprivileged_userns = 1, as on Ubuntu 24.04)"
		x.Fix = profile(f.programDir)
	case f.clone == nil:
		x.Detail = "made, but without rights inside: " + mount
		x.Fix = f.containerFix("look for a security module that confines this account")
	case f.maxUserNS == 0 || errors.Is(f.clone, syscall.ENOSPC) || errors.Is(f.clone, syscall.EUSERS):
		x.Detail = fmt.Sprintf("refused: user.max_user_namespaces is %d", f.maxUserNS)
		x.Fix = "sudo sysctl -w user.max_user_namespaces=15000"
	case f.cloneKnob == 0:
		x.Detail = "refused: kernel.unprivileged_userns_clone is 0"
		x.Fix = "sudo sysctl -w kernel.unprivileged_userns_clone=1"
	default:
		x.Detail = "refused: " + cause(f.clone)
		x.Fix = f.containerFix("look for a security module or a seccomp filter that confines this account")
	}
	return x
}

func (f *facts) containerFix(otherwise string) string {
	if f.container {
		return "give this container --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined, or work outside of it"
	}
	return otherwise
}

// cause is the system's word at the end of an error.
func cause(err error) string {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no.Error()
	}
	return fault.Detail(err)
}

func (f *facts) mounts() Finding {
	x := Finding{Name: "private file view", Consequence: noSandbox, Fatal: true}
	for _, name := range []string{tryMount, tryBind, tryProc, tryPTS} {
		text, ok := f.said(name)
		if ok {
			continue
		}
		x.Detail = text
		switch {
		case name == tryBind && strings.Contains(text, "not implemented"):
			x.Fix = "use Linux 5.12 or newer"
		case name == tryProc:
			x.Detail = text + " (parts of the outer /proc are covered, as in most containers)"
			x.Fix = f.containerFix("umount what covers parts of /proc: findmnt -R /proc")
		case name == tryMount:
			x.Fix = "see user namespaces"
		default:
			x.Fix = f.containerFix("look for a security module that confines mounts")
		}
		return x
	}
	return present(x.Name, "bind, proc, devpts and tmpfs mounts work in it")
}

func (f *facts) overlays() Finding {
	text, ok := f.said(tryOverlay)
	if ok {
		return present("overlay", "images get a writable layer without a copy")
	}
	return Finding{Name: "overlay", State: Limited, Detail: text, Consequence: "--from IMAGE does not work; the host's own files and directories do", Fix: "sudo modprobe overlay; unprivileged overlays need Linux 5.11 or newer"}
}

func (f *facts) network() Finding {
	text, ok := f.said(tryNetwork)
	if ok {
		return present("network namespace", "lo and %s are up in it, and nothing leads out", "eth0")
	}
	return Finding{Name: "network namespace", Detail: text, Consequence: noSandbox, Fatal: true, Fix: "sudo modprobe bridge || sudo modprobe dummy || sudo modprobe veth"}
}

func (f *facts) packetRules() Finding {
	text, ok := f.said(tryFence)
	if ok {
		return present("nftables", "the fence was loaded in a namespace of its own")
	}
	return Finding{Name: "nftables", Detail: text, Consequence: noSandbox + ": connections could not be captured", Fatal: true,
		Fix: "sudo modprobe -a nf_tables nft_chain_nat nft_redir nft_log nft_ct nft_reject_inet nfnetlink_log"}
}

func (f *facts) filter() Finding {
	text, ok := f.said(tryFilter)
	if ok {
		return present("seccomp filter", "the filter of a sandbox was installed on a thread")
	}
	return Finding{Name: "seccomp filter", Detail: text, Consequence: noSandbox, Fatal: true, Fix: "use a kernel with CONFIG_SECCOMP_FILTER"}
}

func (f *facts) notification() Finding {
	text, ok := f.said(tryNotify)
	if ok {
		return present("seccomp notification", "a listener was installed")
	}
	return Finding{Name: "seccomp notification", State: Limited, Detail: text, Consequence: "nothing here; container drivers could not name the program behind a connection", Fix: "use Linux 5.0 or newer"}
}

func (f *facts) timeNamespace() Finding {
	text, ok := f.said(tryTime)
	if ok {
		return present("time namespace", "made one")
	}
	return Finding{Name: "time namespace", State: Limited, Detail: text, Consequence: "sandboxes see the host's clock offsets; nothing else", Fix: "use Linux 5.6 or newer with CONFIG_TIME_NS"}
}

func (f *facts) fileRules() Finding {
	const hard = "policies with landlock.compatibility hard_requirement do not start"
	text, ok := f.said(tryLandlock)
	switch {
	case f.landlockErr != nil:
		return Finding{Name: "Landlock", State: Limited, Detail: f.landlockErr.Error(), Consequence: hard + "; the private file view still holds",
			Fix: "put landlock first in the lsm= parameter of the kernel's command line; what is there now: cat /sys/kernel/security/lsm"}
	case f.landlockABI < landlock.MinHard:
		return Finding{Name: "Landlock", State: Limited, Detail: fmt.Sprintf("ABI %d", f.landlockABI), Consequence: hard, Fix: "use Linux 6.2 or newer"}
	case f.clone == nil && !ok:
		return Finding{Name: "Landlock", State: Limited, Detail: fmt.Sprintf("ABI %d, but: %s", f.landlockABI, text), Consequence: hard}
	}
	return present("Landlock", "ABI %d%s", f.landlockABI, newest(f.landlockABI))
}

func newest(abi int) string {
	switch {
	case abi < 6:
		return "; signals are fenced by other means (scopes need ABI 6)"
	case abi > landlock.Highest:
		return fmt.Sprintf(", used as %d", landlock.Highest)
	}
	return ""
}

func (f *facts) limitLines() []Finding {
	var out []Finding
	flag := map[string]string{"cpu": "--cpu", "memory": "--memory", "pids": "--pids"}
	for _, name := range []string{"cpu", "memory", "pids"} {
		err, tried := f.limits[name]
		if !tried {
			continue
		}
		if err == nil {
			out = append(out, present("limit: "+name, "set in a group of its own"))
			continue
		}
		x := Finding{Name: "limit: " + name, State: Limited, Detail: fault.Detail(err), Consequence: flag[name] + " does not work; without it nothing changes"}
		switch {
		case fault.HintOf(err) != "":
			x.Fix = fault.HintOf(err)
		case f.cgroup && f.uid != 0:
			x.Fix = `sudo mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\nDelegate=cpu memory pids\n' | sudo tee /etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload, then sign in again`
		default:
			x.Fix = "run as root, or in a session with delegated control groups: systemd-run --user --scope -p Delegate=yes -- " + brand.CLI + " run ..."
		}
		out = append(out, x)
	}
	return out
}

const (
	littleSpace = 2 << 30
	noSpace     = 16 << 20
)

func (f *facts) space() Finding {
	x := Finding{Name: "disk", Detail: fmt.Sprintf("%s free for %s", size(f.free), f.stateDir)}
	switch {
	case f.freeErr != nil:
		x.Detail, x.Fatal = fmt.Sprintf("%s: %s", f.stateDir, f.freeErr), true
		x.Consequence, x.Fix = noSandbox, "mkdir -p "+f.stateDir
	case f.writable != nil:
		x.Detail, x.Fatal = fmt.Sprintf("%s cannot be written: %s", f.stateDir, f.writable), true
		x.Consequence, x.Fix = noSandbox, "export XDG_STATE_HOME=DIR with a directory of yours"
	case f.free < noSpace:
		x.Consequence, x.Fatal, x.Fix = noSandbox, true, "make room: du -xh "+filepath.Dir(f.stateDir)+" | sort -h | tail"
	case f.free < littleSpace:
		x.State, x.Consequence = Limited, "images may not fit"
		x.Fix = "make room, or put the cache elsewhere: export XDG_CACHE_HOME=DIR"
	default:
		x.State = Present
	}
	return x
}

func size(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// files says which of our programs stand together. Without the launcher and
// its front nothing runs; the others are for the gateway's door.
func (f *facts) files() Finding {
	var missing []string
	for name, there := range f.programs {
		if !there {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	if len(missing) == 0 {
		return present("programs", "all %d in %s", len(f.programs), f.programDir)
	}
	x := Finding{Name: "programs", State: Limited, Detail: strings.Join(missing, ", ") + " missing in " + f.programDir, Fix: "install all programs of one release into one directory"}
	x.Consequence = "sandboxes of a gateway do not work; " + brand.CLI + " run does"
	if slices.Contains(missing, brand.Launcher) || slices.Contains(missing, brand.CLI) {
		x.State, x.Fatal, x.Consequence = Missing, true, noSandbox
	}
	return x
}

func (f *facts) whole() Finding {
	if f.trial == nil {
		return present("a sandbox", "made one, ran true in it, and it is gone: %s", f.trialTime.Round(time.Millisecond/10))
	}
	return Finding{Name: "a sandbox", Detail: fault.Detail(f.trial), Consequence: noSandbox, Fatal: true, Fix: brand.CLI + " run --explain -- true"}
}
