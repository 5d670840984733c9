package identity

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

type prog struct {
	path  string
	opens int
}

func (p *prog) check(t *testing.T, pins *Pins, as string) (Digest, error) {
	t.Helper()
	f, err := os.Open(p.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := Stat(f)
	if err != nil {
		t.Fatal(err)
	}
	return pins.Check(as, v, func() (*os.File, error) { p.opens++; return os.Open(p.path) })
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestContentIsPinnedAtFirstUse(t *testing.T) {
	p := &prog{path: filepath.Join(t.TempDir(), "tool")}
	pins := NewPins()
	write(t, p.path, "one")
	for range 2 {
		d, err := p.check(t, pins, "/usr/bin/tool")
		if err != nil || d != Digest(sha256.Sum256([]byte("one"))) {
			t.Fatalf("first content: %v %v", d, err)
		}
	}
	if p.opens != 1 {
		t.Errorf("hashed %d times, want once", p.opens)
	}
	write(t, p.path, "two")
	if _, err := p.check(t, pins, "/usr/bin/tool"); !errors.Is(err, ErrReplaced) {
		t.Errorf("other content: %v, want ErrReplaced", err)
	}
	if err := os.Remove(p.path); err != nil {
		t.Fatal(err)
	}
	write(t, p.path, "one") // another inode, the same content: the same program
	if _, err := p.check(t, pins, "/usr/bin/tool"); err != nil {
		t.Errorf("same content again: %v", err)
	}
	if _, err := p.check(t, pins, "/usr/bin/other"); err != nil {
		t.Errorf("same content, other path: %v", err)
	}
}

func TestAFileThatIsNotTheOneSeenIsRefused(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write(t, a, "good")
	write(t, b, "evil")
	f, err := os.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := Stat(f)
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewPins().Check("/a", v, func() (*os.File, error) { return os.Open(b) })
	if !errors.Is(err, ErrChanging) {
		t.Errorf("another file behind the descriptor: %v", err)
	}
	if _, err := NewPins().Check("/a", v, func() (*os.File, error) { return nil, os.ErrNotExist }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("unreadable: %v", err)
	}
	if d, err := os.Open(dir); err == nil {
		defer d.Close()
		if _, err := Stat(d); err == nil {
			t.Error("a directory is no executable")
		}
	}
}

func TestManyAtOnceHashOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tool")
	write(t, path, "content")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, _ := Stat(f)
	pins := NewPins()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := pins.Check("/tool", v, func() (*os.File, error) { return os.Open(path) }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
