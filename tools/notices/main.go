// Command notices writes THIRD_PARTY_NOTICES.md: every module that a program
// of ours links, with its licence text.
//
//	cd tools && go run ./notices
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
)

func main() {
	if err := write(); err != nil {
		fmt.Fprintln(os.Stderr, "notices:", err)
		os.Exit(1)
	}
}

func write() error {
	cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}} {{.Version}} {{.Dir}}{{end}}", "./cmd/...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("list what is linked: %w", err)
	}
	seen := map[string]bool{}
	var lines []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if f := strings.Fields(line); len(f) == 3 && !seen[line] {
			seen[line] = true
			lines = append(lines, line)
		}
	}
	sort.Strings(lines)
	var b bytes.Buffer
	b.WriteString("# Third-party notices\n\nModules linked into the programs, with their licences. Written by `cd tools && go run ./notices`.\n")
	b.WriteString("The programs also link the Go standard library (BSD-3-Clause).\n")
	for _, line := range lines {
		f := strings.Fields(line)
		text, err := licence(f[2])
		if err != nil {
			return fmt.Errorf("%s: %w", f[0], err)
		}
		fmt.Fprintf(&b, "\n## %s %s\n\n```\n%s\n```\n", f[0], f[1], strings.TrimSpace(strings.ReplaceAll(text, "```", "'''")))
	}
	return os.WriteFile("../THIRD_PARTY_NOTICES.md", b.Bytes(), 0o644)
}

func licence(dir string) (string, error) {
	for _, pattern := range []string{"LICENSE*", "LICENCE*", "COPYING*", "License*", "license*"} {
		names, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, name := range names {
			if data, err := os.ReadFile(name); err == nil {
				return string(data), nil
			}
		}
	}
	return "", errors.New("no licence file")
}
