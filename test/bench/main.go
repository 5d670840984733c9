// Command bench measures what a person waits for, beside the peers that are
// installed, in one run and interleaved, and prints it as a table. Nothing in
// it is asserted: this machine's figures are this machine's; ratios travel.
//
//	go run ./test/bench            everything
//	go run ./test/bench -runs 60   more runs
//
// It builds the programs, works as whoever calls it, and leaves nothing behind.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	runs := flag.Int("runs", 40, "counted runs of each command")
	flag.Parse()
	if err := bench(*runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(runs int) error {
	dir, err := os.MkdirTemp("", "openshell-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "bin")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin+"/", "./cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	home, work := filepath.Join(dir, "home"), filepath.Join(dir, "work")
	for _, d := range []string{home, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	b := &bencher{runs: runs, bin: bin, home: home, work: work}
	if err := b.starts(); err != nil {
		return err
	}
	return b.gateway()
}

type bencher struct {
	runs            int
	bin, home, work string
}

func (b *bencher) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = b.work
	cmd.Env = []string{"HOME=" + b.home, "PATH=" + b.bin + ":" + os.Getenv("PATH"), "LANG=C.UTF-8"}
	return cmd
}

// subject is one command of an interleaved series.
type subject struct {
	name string
	argv []string
	took []time.Duration
}

func (s *subject) sorted() []time.Duration {
	out := slices.Clone(s.took)
	slices.Sort(out)
	return out
}

func (s *subject) median() time.Duration { return s.sorted()[len(s.took)/2] }
func (s *subject) min() time.Duration    { return s.sorted()[0] }

func (b *bencher) interleave(subjects []*subject) error {
	for i := range b.runs + 3 {
		for _, s := range subjects {
			begin := time.Now()
			if out, err := b.command(s.argv[0], s.argv[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w\n%s", s.name, err, out)
			}
			if i >= 3 { // the first are for the caches
				s.took = append(s.took, time.Since(begin))
			}
		}
	}
	return nil
}

// starts compares the start of a confined `true` with bubblewrap, which does
// less (no rules, no listeners, no Landlock, no filter), and with nothing.
func (b *bencher) starts() error {
	ours := &subject{name: "openshell run -- true", argv: []string{filepath.Join(b.bin, "openshell"), "run", "-q", "--", "true"}}
	subjects := []*subject{{name: "true", argv: []string{"true"}}, ours}
	var wrap *subject
	if path, err := exec.LookPath("bwrap"); err == nil {
		argv := []string{path, "--unshare-all", "--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"}
		for _, l := range []string{"/bin", "/lib", "/lib64"} {
			if target, err := os.Readlink(l); err == nil {
				argv = append(argv, "--symlink", target, l)
			} else if _, err := os.Stat(l); err == nil {
				argv = append(argv, "--ro-bind", l, l)
			}
		}
		wrap = &subject{name: "bwrap --unshare-all -- true", argv: append(argv, "true")}
		subjects = append(subjects, wrap)
	}
	if err := b.interleave(subjects); err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 2, 4, 2, ' ', 0)
	fmt.Fprintln(w, "start\tmedian\tminimum\tof bwrap (median)\t(minimum)")
	for _, s := range subjects {
		ratio, least := "", ""
		if wrap != nil {
			ratio = fmt.Sprintf("%.2f", float64(s.median())/float64(wrap.median()))
			least = fmt.Sprintf("%.2f", float64(s.min())/float64(wrap.min()))
		}
		fmt.Fprintf(w, "%s\t%.2f ms\t%.2f ms\t%s\t%s\n", s.name, ms(s.median()), ms(s.min()), ratio, least)
	}
	if wrap == nil {
		fmt.Fprintln(w, "(bubblewrap is not installed: no ratio)")
	}
	return w.Flush()
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// pss is the proportional memory of the processes of program and of their
// children, in KiB, and how many there are.
func pss(program string) (kib, n int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	parents := map[string]bool{}
	for _, d := range dirs {
		line, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		if strings.HasPrefix(string(line), program+"\x00") {
			parents[filepath.Base(d)] = true
		}
	}
	for _, d := range dirs {
		stat, _ := os.ReadFile(filepath.Join(d, "stat"))
		_, rest, _ := strings.Cut(string(stat), ") ")
		f := strings.Fields(rest)
		if !parents[filepath.Base(d)] && (len(f) < 2 || !parents[f[1]]) {
			continue
		}
		rollup, err := os.ReadFile(filepath.Join(d, "smaps_rollup"))
		if err != nil {
			continue
		}
		for l := range strings.Lines(string(rollup)) {
			var v int
			if _, err := fmt.Sscanf(l, "Pss: %d kB", &v); err == nil {
				kib += v
				n++
			}
		}
	}
	return kib, n
}
