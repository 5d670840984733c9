// Command look prints all that a process can observe about itself, as JSON.
// The posture test runs it inside a sandbox.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Posture is what was seen. Every list is sorted.
type Posture struct {
	Status      map[string]string // chosen lines of /proc/self/status
	IDs         []int             // uid, euid, gid, egid
	Groups      []int
	Session     string // "leader" if pid, group and session are one
	Umask       int
	Limits      map[string][2]uint64
	Descriptors []string
	Namespaces  map[string]string
	Mounts      []string // "mountpoint fstype options"
	Root        []string
	Dev         []string
	Processes   []string
	Environment []string // names
	Hostname    string
	Dir         string
	Interfaces  []string
	Routes      []string
	Terminal    string
	Securebits  int
	Dumpable    int
	DeathSignal int
	Personality string
	Cgroup      string
	SysNet      []string
	Priority    int
	OOM         string
}

func main() {
	p := Posture{
		Status: map[string]string{}, Limits: map[string][2]uint64{}, Namespaces: map[string]string{},
		IDs: []int{os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid()},
	}
	for _, line := range lines("/proc/self/status") {
		k, v, _ := strings.Cut(line, ":")
		switch k {
		case "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "SigBlk", "SigIgn", "TracerPid", "NStgid":
			p.Status[k] = strings.TrimSpace(v)
		}
	}
	p.Groups, _ = os.Getgroups()
	sid, _ := unix.Getsid(0)
	pgid, _ := unix.Getpgid(0)
	if sid == os.Getpid() && pgid == sid {
		p.Session = "leader"
	} else {
		p.Session = "member"
	}
	p.Umask = unix.Umask(0)
	for name, r := range map[string]int{
		"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA, "fsize": unix.RLIMIT_FSIZE,
		"locks": 10, "memlock": unix.RLIMIT_MEMLOCK, "msgqueue": 12, "nice": 13, "nofile": unix.RLIMIT_NOFILE,
		"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": 14, "rttime": 15, "sigpending": 11, "stack": unix.RLIMIT_STACK,
	} {
		var l unix.Rlimit
		if unix.Prlimit(0, r, nil, &l) == nil {
			p.Limits[name] = [2]uint64{l.Cur, l.Max}
		}
	}
	for _, e := range entries("/proc/self/fd") {
		target, err := os.Readlink("/proc/self/fd/" + e)
		if err != nil || strings.HasPrefix(target, "/proc/") || strings.HasPrefix(target, "anon_inode:") {
			continue // the directory just read, and Go's own poller
		}
		p.Descriptors = append(p.Descriptors, e)
	}
	for _, ns := range entries("/proc/self/ns") {
		p.Namespaces[ns], _ = os.Readlink("/proc/self/ns/" + ns)
	}
	for _, line := range lines("/proc/self/mountinfo") {
		f := strings.Fields(line)
		sep := slices.Index(f, "-")
		if sep < 6 || len(f) < sep+2 {
			continue
		}
		shared := ""
		if sep > 6 {
			shared = " " + strings.Join(f[6:sep], " ")
		}
		p.Mounts = append(p.Mounts, f[4]+" "+f[sep+1]+" "+f[5]+shared)
	}
	sort.Strings(p.Mounts)
	p.Root, p.Dev = entries("/"), entries("/dev")
	for _, e := range entries("/proc") {
		if _, err := strconv.Atoi(e); err == nil && e != strconv.Itoa(os.Getpid()) {
			cmd, _ := os.ReadFile(filepath.Join("/proc", e, "cmdline"))
			p.Processes = append(p.Processes, strings.ReplaceAll(string(cmd), "\x00", " "))
		}
	}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		p.Environment = append(p.Environment, name)
	}
	sort.Strings(p.Environment)
	p.Hostname, _ = os.Hostname()
	p.Dir, _ = os.Getwd()
	ifs, _ := net.Interfaces()
	for _, i := range ifs {
		addrs, _ := i.Addrs()
		p.Interfaces = append(p.Interfaces, fmt.Sprintf("%s %v %v", i.Name, i.Flags, addrs))
	}
	for _, line := range lines("/proc/net/route")[1:] {
		f := strings.Fields(line)
		if len(f) > 7 {
			p.Routes = append(p.Routes, "4 "+strings.Join([]string{f[0], f[1], f[2], f[7]}, " "))
		}
	}
	for _, line := range lines("/proc/net/ipv6_route") {
		f := strings.Fields(line)
		if len(f) > 9 {
			p.Routes = append(p.Routes, "6 "+strings.Join([]string{f[9], f[0] + "/" + f[1], f[4]}, " "))
		}
	}
	sort.Strings(p.Routes)
	if f, err := os.Open("/dev/tty"); err == nil {
		p.Terminal = "yes"
		f.Close()
	} else {
		p.Terminal = "none"
	}
	p.Securebits, _ = unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	p.Dumpable, _ = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if data, err := os.ReadFile("/proc/self/personality"); err == nil {
		p.Personality = strings.TrimSpace(string(data))
	}
	if data, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		p.Cgroup = string(data)
	}
	p.SysNet = entries("/sys/class/net")
	p.Priority, _ = unix.Getpriority(unix.PRIO_PROCESS, 0)
	if data, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		p.OOM = strings.TrimSpace(string(data))
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", " ")
	_ = enc.Encode(p)
}

func lines(path string) []string {
	data, _ := os.ReadFile(path)
	return strings.Split(strings.TrimRight(string(data), "\n"), "\n")
}

func entries(dir string) []string {
	list, _ := os.ReadDir(dir)
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	sort.Strings(out)
	return out
}
