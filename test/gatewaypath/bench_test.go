package gatewaypath

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"
	"text/tabwriter"
	"time"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/test/person"
)

// BenchmarkGatewayPath prints what the API costs on a warm gateway, beside
// what forking a program costs in the same run: the ratio is what to compare
// between machines. Run it with -benchtime=1x.
func BenchmarkGatewayPath(b *testing.B) {
	p := person.New(b, person.Accounts()[0])
	w := newWorld(b, p)
	const rounds = 25
	var fork, create, login, plain, del, sync []time.Duration
	took := func(f func()) time.Duration {
		began := time.Now()
		f()
		return time.Since(began)
	}
	for b.Loop() {
		for n := range rounds {
			fork = append(fork, took(func() {
				if err := exec.Command("/bin/true").Run(); err != nil {
					b.Fatal(err)
				}
			}))
			sync = append(sync, took(func() { fsync(b, w.state) }))
			name := fmt.Sprintf("box-%d", n)
			create = append(create, took(func() {
				if got := w.create(name, &openshellv1.SandboxSpec{Command: []string{"sleep", "600"}}); got.GetStatus().GetPhase() != ready {
					w.phase(name, ready)
				}
			}))
			for _, x := range []struct {
				into    *[]time.Duration
				noLogin bool
			}{{&login, false}, {&plain, true}} {
				*x.into = append(*x.into, took(func() {
					if _, exit, err := w.exec(name, &openshellv1.ExecSandboxRequest{Command: []string{"/bin/true"}, NoLoginShell: x.noLogin}); err != nil || exit != 0 {
						b.Fatal(exit, err)
					}
				}))
			}
			del = append(del, took(func() {
				w.call("DeleteSandbox", &openshellv1.DeleteSandboxRequest{WorkspaceScope: scope(), Name: name}, &openshellv1.DeleteSandboxResponse{})
			}))
		}
	}
	base := median(fork)
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\nwhat\tmedian ms\tbest ms\ttimes fork+exec\ttarget ms\t")
	for _, row := range []struct {
		name   string
		of     []time.Duration
		target string
	}{{"fork+exec /bin/true", fork, ""}, {"fsync of 4 KiB", sync, ""}, {"create to Ready", create, "20"}, {"exec, bash -c", plain, "3"}, {"exec, bash -lc", login, ""}, {"delete", del, "20"}} {
		m := median(row.of)
		fmt.Fprintf(t, "%s\t%.1f\t%.1f\t%.1f\t%s\t\n", row.name, ms(m), ms(slices.Min(row.of)), float64(m)/float64(base), row.target)
	}
	_ = t.Flush()
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// fsync is what one wait for the disk costs where the database lies.
func fsync(b *testing.B, dir string) {
	f, err := os.CreateTemp(dir, "sync")
	if err != nil {
		b.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(make([]byte, 4096)); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
}
