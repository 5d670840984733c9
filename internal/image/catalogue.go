package image

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/pelletier/go-toml/v2"

	"openshell.dev/openshell/internal/fault"
)

//go:embed catalogue.toml
var builtinCatalogue []byte

// Catalogue maps bare words to images. The zero value knows no word.
type Catalogue struct {
	Registry string // prefix of entries without a reference of their own
	entries  map[string]Entry
}

// Entry is one word of the catalogue.
type Entry struct {
	Name      string   `toml:"name"`
	Summary   string   `toml:"summary"`
	Reference string   `toml:"reference"` // empty: Registry/Name:latest
	Command   []string `toml:"command"`   // what the image is made to run
	Profiles  []string `toml:"profiles"`  // provider profiles it needs
	Policy    string   `toml:"policy"`    // path of a policy file on the gateway
	Ports     []int    `toml:"ports"`     // what a person will want to forward
}

type catalogueFile struct {
	Schema   int     `toml:"schema"`
	Registry string  `toml:"registry"`
	Images   []Entry `toml:"image"`
}

// catalogueWord reports whether a word can be the last part of a repository.
func catalogueWord(s string) bool {
	edge := true // no separator at the ends, or beside another
	for _, r := range s {
		alnum := r >= 'a' && r <= 'z' || r >= '0' && r <= '9'
		if !alnum && (edge || !strings.ContainsRune("._-", r)) {
			return false
		}
		edge = !alnum
	}
	return !edge
}

// Builtin returns the catalogue shipped with us.
var Builtin = sync.OnceValue(func() *Catalogue {
	c, err := parseCatalogue("catalogue.toml", builtinCatalogue)
	if err != nil {
		panic(err) // a test parses the same bytes
	}
	return c
})

// LoadCatalogue returns the shipped catalogue extended by a file, whose words
// win. An empty name is the shipped one alone.
func LoadCatalogue(file string) (*Catalogue, error) {
	base := Builtin()
	if file == "" {
		return base, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fault.New(fault.NotFound, "the image catalogue %q cannot be read", file).Cause(err)
	}
	more, err := parseCatalogue(file, data)
	if err != nil {
		return nil, err
	}
	out := &Catalogue{Registry: base.Registry, entries: map[string]Entry{}}
	if more.Registry != "" {
		out.Registry = more.Registry
	}
	for _, c := range []*Catalogue{base, more} {
		for word, e := range c.entries {
			out.entries[word] = e
		}
	}
	return out, nil
}

func parseCatalogue(file string, data []byte) (*Catalogue, error) {
	var doc catalogueFile
	if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&doc); err != nil {
		where, what := file, err.Error()
		if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(strict.Errors) > 0 {
			row, col := strict.Errors[0].Position()
			where = fmt.Sprintf("%s:%d:%d", file, row, col)
			what = fmt.Sprintf("unknown key %q", strings.Join(strict.Errors[0].Key(), "."))
		} else if decode, ok := errors.AsType[*toml.DecodeError](err); ok {
			row, col := decode.Position()
			where = fmt.Sprintf("%s:%d:%d", file, row, col)
		}
		return nil, fault.New(fault.InvalidArgument, "%s: %s", where, what)
	}
	bad := func(format string, args ...any) error {
		return fault.New(fault.InvalidArgument, "%s: %s", file, fmt.Sprintf(format, args...))
	}
	if doc.Schema != 1 {
		return nil, bad("schema is %d, this version reads 1", doc.Schema)
	}
	c := &Catalogue{Registry: strings.TrimRight(doc.Registry, "/"), entries: map[string]Entry{}}
	if c.Registry != "" {
		if _, err := name.NewRepository(c.Registry + "/x"); err != nil {
			return nil, bad("registry %q is not a registry with a path", doc.Registry)
		}
	}
	for _, e := range doc.Images {
		switch {
		case !catalogueWord(e.Name) || len(e.Name) > 63:
			return nil, bad("%q cannot be the name of an image", e.Name)
		case officialNames()[e.Name]:
			return nil, bad("%q is an official image of the default registry and keeps that meaning", e.Name)
		}
		if _, twice := c.entries[e.Name]; twice {
			return nil, bad("%q is there twice", e.Name)
		}
		if e.Reference != "" {
			if _, err := name.ParseReference(e.Reference); err != nil {
				return nil, bad("the reference of %q: %v", e.Name, err)
			}
		}
		c.entries[e.Name] = e
	}
	return c, nil
}

// Lookup returns the entry of a word.
func (c *Catalogue) Lookup(word string) (Entry, bool) {
	if c == nil {
		return Entry{}, false
	}
	e, ok := c.entries[word]
	return e, ok
}

// Names returns the number of words and calls f for each, in no order.
func (c *Catalogue) Names(f func(Entry)) {
	if c == nil {
		return
	}
	for _, e := range c.entries {
		f(e)
	}
}

// reference is the full reference of an entry under a prefix.
func (c *Catalogue) reference(e Entry, prefix string) string {
	if prefix != "" {
		return prefix + "/" + e.Name + ":latest"
	}
	if e.Reference != "" {
		return e.Reference
	}
	if c.Registry != "" {
		return c.Registry + "/" + e.Name + ":latest"
	}
	return e.Name
}

// formerWord returns the word of a reference as an old client sends it: one
// that it built itself from a word and the old community registry.
func (c *Catalogue) formerWord(ref string) (string, bool) {
	rest, ok := strings.CutPrefix(ref, Builtin().Registry+"/")
	if !ok {
		return "", false
	}
	rest = strings.TrimSuffix(rest, ":latest")
	_, known := c.Lookup(rest)
	return rest, known
}
