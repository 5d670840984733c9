package view

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"openshell.dev/openshell/internal/fault"
)

// Explain reports why the program at the host path cmd could not be found or
// started inside, with the flag that would show it, or nil. It follows the
// links of the host and the interpreter of a script. On another base than the
// host's, programs are the image's own and there is nothing to explain.
func (v *View) Explain(cmd string) error {
	if !v.onHost {
		return nil
	}
	for hops := 0; hops < 40; hops++ {
		if !v.shows(cmd) {
			dir := prefixOf(cmd)
			return fault.New(fault.NotFound, "%q exists on this machine, but the sandbox does not see it", cmd).
				Hint("add --ro %s", quote(dir))
		}
		text, err := os.Readlink(cmd)
		if err != nil {
			break
		}
		if !filepath.IsAbs(text) {
			text = join(filepath.Dir(cmd), text)
		}
		cmd = filepath.Clean(text)
	}
	if real, err := filepath.EvalSymlinks(cmd); err == nil && !v.shows(real) {
		return v.Explain(real)
	}
	if inter := interpreter(cmd); inter != "" && inter != cmd {
		if _, err := os.Stat(inter); errors.Is(err, os.ErrNotExist) {
			return nil // missing outside as well: the shell's own words will do
		}
		return v.Explain(inter)
	}
	return nil
}

func (v *View) shows(path string) bool {
	found := false
	longest := -1
	for _, s := range v.visible {
		if _, in := below(s.inside, path); in && len(s.inside) > longest {
			longest, found = len(s.inside), true
		}
	}
	if _, in := below(v.Home, path); in && len(v.Home) > longest {
		return false // the home inside is another one
	}
	// Merged directories are shown as links.
	for _, dir := range []string{"/bin", "/sbin", "/lib", "/lib64"} {
		if _, in := below(dir, path); in {
			return true
		}
	}
	return found
}

// prefixOf guesses the directory that holds a tool with its libraries.
func prefixOf(path string) string {
	dir := filepath.Dir(path)
	if i := strings.Index(path, "/node_modules/"); i > 0 {
		return trimLib(path[:i])
	}
	switch filepath.Base(dir) {
	case "bin", "shims", "sbin", "libexec":
		return filepath.Dir(dir)
	}
	return dir
}

func trimLib(dir string) string {
	if filepath.Base(dir) == "lib" {
		return filepath.Dir(dir)
	}
	return dir
}

// interpreter returns the program that runs a script, or nothing.
func interpreter(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	line, _ := bufio.NewReaderSize(f, 256).ReadSlice('\n')
	text, ok := strings.CutPrefix(string(line), "#!")
	if !ok {
		return ""
	}
	words := strings.Fields(text)
	if len(words) == 0 || !filepath.IsAbs(words[0]) {
		return ""
	}
	return words[0]
}
