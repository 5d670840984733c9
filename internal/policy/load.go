package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// The bounds of a document (contract, policy sheet 1.0).
const (
	MaxBytes   = 4 << 20
	maxDepth   = 64
	maxNodes   = 100_000
	maxItems   = 10_000 // keys of a mapping, items of a sequence
	maxScalars = 4 << 20
	maxAliases = 100 // expansions
	maxRatio   = 5   // expansions for each anchor
	// maxIndicators bounds the memory of the YAML library, which builds the
	// whole tree before we can count it. A valid document stays far below.
	maxIndicators = 4 * maxNodes
)

// load reads one bounded YAML or JSON document into a tree.
func load(data []byte) (*yaml.Node, []Violation) {
	fail := func(pos Pos, format string, args ...any) (*yaml.Node, []Violation) {
		return nil, []Violation{{Class: Syntax, Pos: pos, Text: fmt.Sprintf(format, args...)}}
	}
	if len(data) > MaxBytes {
		return fail(Pos{}, "policy exceeds the %d-byte input limit", MaxBytes)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if !utf8.Valid(data) {
		return fail(Pos{}, "the document is not UTF-8")
	}
	if indicators(data) > maxIndicators {
		return fail(Pos{}, "the document has more than %d nodes", maxNodes)
	}
	var root *yaml.Node
	if json.Valid(data) { // JSON has escapes and white space that YAML refuses
		n, err := loadJSON(data)
		if err != nil {
			return fail(Pos{}, "%v", err)
		}
		root = n
	} else {
		dec := yaml.NewDecoder(bytes.NewReader(data))
		var doc yaml.Node
		if err := dec.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
			pos, text := yamlError(err)
			return fail(pos, "%s", text)
		}
		var second yaml.Node
		if err := dec.Decode(&second); err == nil {
			return fail(Pos{second.Line, max(second.Column, 1)}, "a second document starts here, only one is allowed")
		} else if !errors.Is(err, io.EOF) {
			pos, text := yamlError(err)
			return fail(pos, "%s", text)
		}
		if len(doc.Content) == 0 {
			root = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1, Column: 1}
		} else {
			root = doc.Content[0]
		}
	}
	m := measure{}
	m.walk(root, 1)
	if m.problem != nil {
		return nil, []Violation{*m.problem}
	}
	return root, nil
}

// indicators counts the characters that can start a node.
func indicators(data []byte) int {
	n := 0
	for i, c := range data {
		switch c {
		case ',', '[', '{':
			n++
		case '-', ':', '?':
			if i+1 == len(data) || data[i+1] <= ' ' {
				n++
			}
		}
	}
	return n
}

// yamlError takes the line out of the library's message.
func yamlError(err error) (Pos, string) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if num, what, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(num); err == nil {
				return Pos{line, 1}, what
			}
		}
	}
	return Pos{}, text
}

// measure walks a tree with its aliases expanded and stops at the first bound.
type measure struct {
	nodes, scalars, anchors, aliases int
	problem                          *Violation
}

func (m *measure) walk(n *yaml.Node, depth int) {
	m.nodes++
	if n.Anchor != "" {
		m.anchors++
	}
	switch {
	case depth > maxDepth:
		m.stop(n, "nested more than %d levels deep", maxDepth)
	case m.nodes > maxNodes:
		m.stop(n, "the document has more than %d nodes", maxNodes)
	}
	if m.problem != nil {
		return
	}
	switch n.Kind {
	case yaml.AliasNode:
		m.aliases++
		if m.aliases > maxAliases || m.aliases > maxRatio*max(m.anchors, 1) {
			m.stop(n, "too many aliases (at most %d, and %d for each anchor)", maxAliases, maxRatio)
			return
		}
		// An anchor inside the expansion is the same anchor.
		anchors := m.anchors
		m.walk(n.Alias, depth)
		m.anchors = anchors
		return
	case yaml.ScalarNode:
		if m.scalars += len(n.Value); m.scalars > maxScalars {
			m.stop(n, "the values exceed %d bytes", maxScalars)
		}
		return
	case yaml.MappingNode:
		if len(n.Content) > 2*maxItems {
			m.stop(n, "a mapping has more than %d keys", maxItems)
			return
		}
	case yaml.SequenceNode:
		if len(n.Content) > maxItems {
			m.stop(n, "a sequence has more than %d items", maxItems)
			return
		}
	}
	for _, c := range n.Content {
		if m.walk(c, depth+1); m.problem != nil {
			return
		}
	}
}

func (m *measure) stop(n *yaml.Node, format string, args ...any) {
	if m.problem == nil {
		m.problem = &Violation{Class: Syntax, Pos: Pos{n.Line, n.Column}, Text: fmt.Sprintf(format, args...)}
	}
}
