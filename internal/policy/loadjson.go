package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sort"

	"go.yaml.in/yaml/v3"
)

// loadJSON builds the tree of a valid JSON text, so that one reader serves
// both spellings. Duplicate keys are kept: the reader refuses them.
func loadJSON(data []byte) (*yaml.Node, error) {
	j := jsonLoader{data: data, dec: json.NewDecoder(bytes.NewReader(data))}
	j.dec.UseNumber()
	for i, c := range data {
		if c == '\n' {
			j.lines = append(j.lines, i)
		}
	}
	return j.value(0)
}

type jsonLoader struct {
	data  []byte
	dec   *json.Decoder
	lines []int // offsets of line ends
}

// pos returns the place of the token that starts after offset.
func (j *jsonLoader) pos() (line, col int) {
	at := int(j.dec.InputOffset())
	for at < len(j.data) && bytes.IndexByte([]byte(" \t\r\n,:"), j.data[at]) >= 0 {
		at++
	}
	n := sort.SearchInts(j.lines, at)
	start := 0
	if n > 0 {
		start = j.lines[n-1] + 1
	}
	return n + 1, at - start + 1
}

func (j *jsonLoader) value(depth int) (*yaml.Node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested more than %d levels deep", maxDepth)
	}
	n := &yaml.Node{}
	n.Line, n.Column = j.pos()
	tok, err := j.dec.Token()
	if err != nil {
		return nil, err
	}
	n.Kind = yaml.ScalarNode
	switch v := tok.(type) {
	case string:
		n.Tag, n.Value, n.Style = "!!str", v, yaml.DoubleQuotedStyle
	case json.Number:
		n.Tag, n.Value = "!!float", v.String()
		if _, err := v.Int64(); err == nil {
			n.Tag = "!!int"
		}
	case bool:
		n.Tag, n.Value = "!!bool", "false"
		if v {
			n.Value = "true"
		}
	case nil:
		n.Tag, n.Value = "!!null", "null"
	case json.Delim:
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		if v == '{' {
			n.Kind, n.Tag = yaml.MappingNode, "!!map"
		}
		for j.dec.More() {
			child, err := j.value(depth + 1)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		if _, err := j.dec.Token(); err != nil {
			return nil, err
		}
	}
	return n, nil
}
