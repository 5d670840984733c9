package view

import (
	"os"
	"testing"
)

func BenchmarkBuild(b *testing.B) {
	work, state := b.TempDir(), b.TempDir()
	for b.Loop() {
		v, err := Build(Spec{ID: "bench", State: state, Workdir: work, Who: Identity{UID: os.Getuid(), GID: os.Getgid()}})
		if err != nil {
			b.Fatal(err)
		}
		if err := v.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
