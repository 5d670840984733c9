package netns

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"openshell.dev/openshell/internal/kerneltest"
)

const benchVar = "NETNS_BENCH_INSIDE"

func TestMain(m *testing.M) {
	if os.Getenv(benchVar) != "" {
		measure()
		return
	}
	os.Exit(m.Run())
}

// measure makes the floor once and prints the time of each phase.
func measure() {
	t := []time.Time{time.Now()}
	mark := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		t = append(t, time.Now())
	}
	rep, err := Setup()
	mark(err)
	s, err := Listen(rep)
	mark(err)
	mark(s.LoadFence())
	fmt.Println(int64(t[1].Sub(t[0])), int64(t[2].Sub(t[1])), int64(t[3].Sub(t[2])))
}

// BenchmarkFloor reports medians of the phases in microseconds, each in a
// fresh namespace: go test -run '^$' -bench Floor -benchtime 100x.
func BenchmarkFloor(b *testing.B) {
	kerneltest.Require(b, kerneltest.NetAdmin)
	names := []string{"interface-us", "sockets-us", "fence-us"}
	phases := make([][]float64, len(names))
	for b.Loop() {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), benchVar+"=1")
		c.Stderr = os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		out, err := c.Output()
		if err != nil {
			b.Fatal(err)
		}
		for i, word := range strings.Fields(string(out)) {
			var ns float64
			fmt.Sscan(word, &ns)
			phases[i] = append(phases[i], ns/1000)
		}
	}
	for i, name := range names {
		slices.Sort(phases[i])
		b.ReportMetric(phases[i][len(phases[i])/2], name)
		b.ReportMetric(phases[i][0], "min-"+name)
	}
	b.ReportMetric(0, "ns/op")
}
