package procs

import (
	"os"
	"testing"
)

// BenchmarkHolders looks for a socket of nobody's through this machine's own
// processes, as far as they may be read: the cost of a whole search.
func BenchmarkHolders(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root to read every process")
	}
	s := search{}
	list, err := s.numbers(-100, "/proc", maxProcesses)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s := search{inode: 1, seen: map[int]bool{}, budget: maxDescriptors}
		if err := s.run(nil, false); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(maxDescriptors-s.budget), "descriptors")
	}
	b.ReportMetric(float64(len(list)), "processes")
}

func BenchmarkChain(b *testing.B) {
	for b.Loop() {
		if _, err := Chain(os.Getpid()); err != nil {
			b.Fatal(err)
		}
	}
}
