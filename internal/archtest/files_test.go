package archtest

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const longestFile = 700

func eachGoFile(t *testing.T, visit func(path string, src []byte)) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "gen" || d.Name() == "testdata" || d.Name() == "bin") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		visit(path, src)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNoFileIsTooLongToRead(t *testing.T) {
	eachGoFile(t, func(path string, src []byte) {
		if n := bytes.Count(src, []byte("\n")); n > longestFile {
			t.Errorf("%s has %d lines, at most %d: split it by content", path, n, longestFile)
		}
	})
}

func TestUnsafeIsSaidInTheFileName(t *testing.T) {
	eachGoFile(t, func(path string, src []byte) {
		f, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ImportsOnly)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
		for _, imp := range f.Imports {
			if imp.Path.Value == `"unsafe"` && !strings.HasSuffix(strings.TrimSuffix(path, ".go"), "_unsafe") && !strings.HasSuffix(path, "_unsafe_test.go") {
				t.Errorf("%s imports unsafe: only *_unsafe.go may", path)
			}
		}
	})
}
