package runcmd

import (
	"openshell.dev/openshell/internal/cgroup"
	"openshell.dev/openshell/internal/supervisor"
)

// limits reads --cpu, --memory and --pids.
func (f *flags) limits() (out supervisor.Limits, err error) {
	for _, q := range []struct {
		flag, word string
		parse      func(string) (int64, error)
		to         *int64
	}{
		{"--cpu", f.cpu, cgroup.ParseCPU, &out.MilliCPU},
		{"--memory", f.memory, cgroup.ParseMemory, &out.Memory},
		{"--pids", f.pids, cgroup.ParsePids, &out.Pids},
	} {
		if q.word == "" {
			continue
		}
		if *q.to, err = q.parse(q.word); err != nil {
			return out, misuse("%s %q: %v", q.flag, q.word, err).Hint("--cpu 1.5 --memory 4Gi --pids 512")
		}
	}
	return out, nil
}
