package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"golang.org/x/term"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// format is how a command prints its result.
type format string

const (
	table    format = "table"
	jsonOut  format = "json"
	yamlOut  format = "yaml"
	jsonList format = "json-list" // the list without its envelope, ours
)

// formatFlag adds -o and checks its word.
type formatFlag struct {
	value   format
	allowed []format
}

func (f *formatFlag) String() string { return string(f.value) }
func (f *formatFlag) Type() string   { return "FORMAT" }

func (f *formatFlag) Set(s string) error {
	if !slices.Contains(f.allowed, format(s)) && format(s) != jsonList {
		words := make([]string, len(f.allowed))
		for i, w := range f.allowed {
			words[i] = string(w)
		}
		return misuse("--output %q is not known", s).Hint("-o %s", strings.Join(words, ", -o "))
	}
	f.value = format(s)
	return nil
}

func outputFlag(cmd *cobra.Command, allowed ...format) *formatFlag {
	if len(allowed) == 0 {
		allowed = []format{table, yamlOut, jsonOut}
	}
	f := &formatFlag{value: allowed[0], allowed: allowed}
	words := make([]string, len(allowed))
	for i, w := range allowed {
		words[i] = string(w)
	}
	cmd.Flags().VarP(f, "output", "o", "print as "+strings.Join(words, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	return f
}

// structured reports whether the output is for programs.
func (f *formatFlag) structured() bool { return f.value != table }

// print writes v as JSON or YAML.
func (f *formatFlag) print(w io.Writer, v any) error {
	body, err := toJSON(v)
	if err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	if f.value == yamlOut {
		if body, err = toYAML(body); err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
	}
	_, err = w.Write(body)
	return err
}

func toJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return b.Bytes(), err
}

// toYAML writes JSON as YAML, keys in the same order.
func toYAML(body []byte) ([]byte, error) {
	var n yaml.Node
	if err := yaml.Unmarshal(body, &n); err != nil {
		return nil, err
	}
	var plain func(*yaml.Node)
	plain = func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode {
			n.Style = 0
		} else if n.Tag == "!!str" {
			n.Style = 0 // quoted again where a plain word would mean something else
		}
		for _, c := range n.Content {
			plain(c)
		}
	}
	plain(&n)
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&n); err != nil {
		return nil, err
	}
	return b.Bytes(), enc.Close()
}

// rows prints a table.
func rows(w io.Writer, head []string, lines [][]string) error {
	t := tabwriter.NewWriter(w, 0, 4, 3, ' ', 0)
	fmt.Fprintln(t, strings.Join(head, "\t"))
	for _, l := range lines {
		for i := range l {
			l[i] = clean(l[i])
		}
		fmt.Fprintln(t, strings.Join(l, "\t"))
	}
	return t.Flush()
}

// clean removes what could drive a terminal or break a table out of text
// that came from elsewhere.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0):
			return -1
		}
		return r
	}, s)
}

// stamp is a time as people and the contract's JSON read it.
func stamp(t *timestamppb.Timestamp) string {
	if t == nil || !t.IsValid() {
		return "-"
	}
	return t.AsTime().UTC().Format(time.DateTime)
}

// millis is a time as the contract's _ms keys have it.
func millis(t *timestamppb.Timestamp) int64 {
	if t == nil {
		return 0
	}
	return t.AsTime().UnixMilli()
}

// colour wraps text in an SGR sequence where that is wanted.
func (a *app) colour(f *os.File, code, text string) string {
	if !a.coloured(f) {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (a *app) coloured(f *os.File) bool {
	switch a.color {
	case "always":
		return true
	case "never":
		return false
	}
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(f)
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// done prints a confirmation.
func (a *app) done(f *os.File, format string, args ...any) {
	fmt.Fprintf(f, "%s %s\n", a.colour(f, "32", "✓"), fmt.Sprintf(format, args...))
}

// mild prints something that is no failure and not what was hoped for.
func (a *app) mild(f *os.File, format string, args ...any) {
	fmt.Fprintf(f, "%s %s\n", a.colour(f, "33", "!"), fmt.Sprintf(format, args...))
}

// toJSONLine is one object on one line.
func toJSONLine(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}
