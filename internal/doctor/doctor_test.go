package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/kerneltest"
)

const probeVar = "DOCTOR_TEST_PROBE"

func TestMain(m *testing.M) {
	if os.Getenv(probeVar) != "" {
		if err := Probe(os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func options(t *testing.T) Options {
	return Options{Probe: []string{"/proc/self/exe"}, ProbeEnv: []string{probeVar + "=1"}, StateDir: "/tmp"}
}

func find(t *testing.T, list []Finding, name string) Finding {
	t.Helper()
	for _, f := range list {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("no finding %q in %+v", name, list)
	return Finding{}
}

// On a machine where the sandboxes of the other tests run, the doctor must say
// so, as whoever runs the tests and as an ordinary account.
func TestWhatWorksHereIsFoundToWork(t *testing.T) {
	kerneltest.Require(t, kerneltest.UserNS, kerneltest.NetAdmin, kerneltest.Seccomp)
	body := func(t *testing.T) {
		r := Run(context.Background(), options(t))
		for _, name := range []string{"user namespaces", "private file view", "network namespace", "nftables", "seccomp filter"} {
			if f := find(t, r.Findings, name); f.State != Present || f.Fatal {
				t.Errorf("%s: %+v", name, f)
			}
		}
	}
	t.Run("caller", body)
	t.Run("ordinary", func(t *testing.T) { kerneltest.Child{Ordinary: true}.Run(t, body) })
}

// A real refusal by the kernel, not a mocked one: a namespace in which no
// further one may be made.
func TestARefusalIsExplained(t *testing.T) {
	kerneltest.Require(t, kerneltest.UserNS)
	kerneltest.Child{Ordinary: true, Clone: syscall.CLONE_NEWUSER, Ambient: true}.Run(t, func(t *testing.T) {
		if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
			t.Skip("cannot limit user namespaces here: ", err)
		}
		r := Run(context.Background(), options(t))
		f := find(t, r.Findings, "user namespaces")
		if r.OK || !f.Fatal || f.State != Missing || f.Fix != "sudo sysctl -w user.max_user_namespaces=15000" {
			t.Errorf("%+v", f)
		}
		var b bytes.Buffer
		if err := r.Write(&b, State.String); err != nil || !strings.Contains(b.String(), "Sandboxes cannot run here.") || !strings.Contains(b.String(), "fix: sudo sysctl") {
			t.Errorf("%v\n%s", err, b.String())
		}
	})
}

func good() *facts {
	f := &facts{uid: 1000, maxUserNS: 1000, cloneKnob: -1, apparmor: -1, programDir: "/opt/os", landlockABI: 7, free: 10 << 30, stateDir: "/home/x",
		probed: map[string]string{}, programs: map[string]bool{}, limits: map[string]error{"cpu": nil, "memory": nil, "pids": nil}}
	for _, name := range []string{tryMount, tryBind, tryProc, tryPTS, tryOverlay, tryNetwork, tryFence, tryLandlock, tryFilter, tryNotify, tryTime} {
		f.probed[name] = ""
	}
	for _, name := range []string{brand.CLI, brand.Client, brand.Gateway, brand.Supervisor, brand.Launcher} {
		f.programs[name] = true
	}
	return f
}

func TestJudgement(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*facts)
		on     string
		state  State
		fatal  bool
		fix    string // contained
		detail string // contained
	}{
		{"all is well", func(*facts) {}, "user namespaces", Present, false, "", "uid 1000"},
		{"Ubuntu 24.04", func(f *facts) { f.apparmor = 1; f.probed[tryMount] = "make the mounts private: permission denied" }, "user namespaces", Missing, true, "profile openshell /opt/os/openshell{,-client,", "AppArmor"},
		{"Ubuntu 24.04, command", func(f *facts) { f.apparmor = 1; f.clone = syscall.EACCES }, "user namespaces", Missing, true, "sudo apparmor_parser -r /etc/apparmor.d/openshell", "AppArmor"},
		{"AppArmor present and harmless", func(f *facts) { f.apparmor = 1 }, "user namespaces", Present, false, "", ""},
		{"limit of zero", func(f *facts) { f.maxUserNS = 0; f.clone = syscall.ENOSPC }, "user namespaces", Missing, true, "user.max_user_namespaces=15000", "is 0"},
		{"Debian's knob", func(f *facts) { f.cloneKnob = 0; f.clone = syscall.EPERM }, "user namespaces", Missing, true, "kernel.unprivileged_userns_clone=1", ""},
		{"in a container", func(f *facts) { f.container = true; f.clone = syscall.EPERM }, "user namespaces", Missing, true, "seccomp=unconfined", "operation not permitted"},
		{"masked proc", func(f *facts) { f.probed[tryProc] = "mount /proc: operation not permitted" }, "private file view", Missing, true, "findmnt -R /proc", "covered"},
		{"old kernel", func(f *facts) { f.probed[tryBind] = "mount_setattr: function not implemented" }, "private file view", Missing, true, "Linux 5.12", ""},
		{"no overlay", func(f *facts) { f.probed[tryOverlay] = "no such device" }, "overlay", Limited, false, "modprobe overlay", ""},
		{"no nftables", func(f *facts) { f.probed[tryFence] = "no such file or directory" }, "nftables", Missing, true, "modprobe -a nf_tables", ""},
		{"the probe died", func(f *facts) { f.probed = nil; f.probeErr = errors.New("no report: killed") }, "user namespaces", Missing, true, "", "killed"},
		{"no Landlock", func(f *facts) { f.landlockABI = 0; f.landlockErr = errors.New("not compiled in") }, "Landlock", Limited, false, "lsm=", "not compiled in"},
		{"old Landlock", func(f *facts) { f.landlockABI = 1 }, "Landlock", Limited, false, "6.2", "ABI 1"},
		{"no delegation", func(f *facts) { f.limits["memory"] = errors.New("permission denied"); f.cgroup = true }, "limit: memory", Limited, false, "Delegate=cpu memory pids", ""},
		{"no launcher", func(f *facts) { f.programs[brand.Launcher] = false }, "programs", Missing, true, "one directory", brand.Launcher},
		{"no gateway", func(f *facts) { f.programs[brand.Gateway] = false }, "programs", Limited, false, "", brand.Gateway},
		{"disk nearly full", func(f *facts) { f.free = 1 << 30 }, "disk", Limited, false, "XDG_CACHE_HOME", "1.0 GiB"},
		{"disk full", func(f *facts) { f.free = 0 }, "disk", Missing, true, "make room", ""},
		{"disk closed", func(f *facts) { f.writable = syscall.EACCES }, "disk", Missing, true, "XDG_STATE_HOME", "permission denied"},
		{"the trial fails", func(f *facts) { f.tried = true; f.trial = errors.New("step x") }, "a sandbox", Missing, true, "--explain", "step x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := good()
			test.change(f)
			got := find(t, judge(f), test.on)
			if got.State != test.state || got.Fatal != test.fatal || !strings.Contains(got.Fix, test.fix) || !strings.Contains(got.Detail, test.detail) {
				t.Errorf("got %+v", got)
			}
			if (got.State == Missing || got.State == Limited) && got.Consequence == "" {
				t.Error("no consequence is named")
			}
		})
	}
}

func TestProgramsCanReadTheReport(t *testing.T) {
	body, err := json.Marshal(Report{Findings: []Finding{{Name: "x", Fatal: true}}})
	if err != nil || string(body) != `{"ok":false,"checks":[{"name":"x","state":"missing","detail":"","fatal":true}]}` {
		t.Errorf("%s, %v", body, err)
	}
}

func TestTheProbeRefusesToRunOutside(t *testing.T) {
	if err := Probe(&bytes.Buffer{}); err == nil {
		t.Error("the probe ran in the host's namespaces")
	}
}
