// Command tally reads `go test -json`, prints what failed, and compares the
// skipped tests with a list: a test that silently stops running fails the gate.
//
//	go test -json ./... | go run ./test/tally -skips test/skips.txt
//
// A line of the list is "package-suffix TestName reason"; the name may end in
// * and the reason is for people. Lines that begin with # are comments.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"strings"
	"time"
)

type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
}

type key struct{ pkg, test string }

func main() {
	list := flag.String("skips", "test/skips.txt", "the expected skips")
	flag.Parse()
	expected, err := readList(*list)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
		os.Exit(2)
	}
	if !tally(os.Stdin, os.Stdout, expected) {
		os.Exit(1)
	}
}

func readList(path string) ([]key, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []key
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) < 3 {
			return nil, fmt.Errorf("%s: %q: package, test and reason are needed", path, strings.TrimSpace(line))
		}
		out = append(out, key{f[0], f[1]})
	}
	return out, nil
}

func (k key) covers(pkg, test string) bool {
	if !strings.HasSuffix(pkg, k.pkg) {
		return false
	}
	if stem, ok := strings.CutSuffix(k.test, "*"); ok {
		return strings.HasPrefix(test, stem)
	}
	return k.test == test
}

// tally reports whether everything passed and only expected tests skipped.
func tally(in io.Reader, out io.Writer, expected []key) bool {
	output := map[key][]string{}
	var passed, failed, skipped int
	var unexpected []string
	ok := true
	start := time.Now()
	scan := bufio.NewScanner(in)
	scan.Buffer(make([]byte, 0, 1<<20), 64<<20)
	for scan.Scan() {
		var e event
		if json.Unmarshal(scan.Bytes(), &e) != nil {
			fmt.Fprintln(out, scan.Text()) // the build's own words
			continue
		}
		k := key{e.Package, e.Test}
		switch e.Action {
		case "output":
			output[k] = append(output[k], e.Output)
		case "build-output":
			fmt.Fprint(out, e.Output)
		case "build-fail":
			ok = false
		case "pass":
			if e.Test != "" {
				passed++
			} else if e.Elapsed > 0.5 {
				fmt.Fprintf(out, "ok   %-60s %6.1fs  (%s in all)\n", e.Package, e.Elapsed, time.Since(start).Round(time.Second))
			}
			delete(output, k)
		case "skip":
			if e.Test == "" { // a package without tests
				continue
			}
			skipped++
			if !slices.ContainsFunc(expected, func(x key) bool { return x.covers(e.Package, e.Test) }) {
				unexpected = append(unexpected, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(output[k])))
			}
			delete(output, k)
		case "fail":
			ok = false
			if e.Test != "" {
				failed++
			}
			fmt.Fprintf(out, "FAIL %s %s\n%s", e.Package, e.Test, strings.Join(output[k], ""))
			delete(output, k)
		}
	}
	if err := scan.Err(); err != nil {
		fmt.Fprintln(out, "tally:", err)
		return false
	}
	sort.Strings(unexpected)
	for _, u := range unexpected {
		fmt.Fprintln(out, "UNEXPECTED SKIP", u)
		ok = false
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if passed == 0 {
		fmt.Fprintln(out, "no test ran")
		return false
	}
	return ok
}

func reason(lines []string) string {
	for _, l := range lines {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "===") && !strings.HasPrefix(l, "---") {
			return l
		}
	}
	return "no reason given"
}
