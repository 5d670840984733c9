package image

import (
	"archive/tar"
	"path/filepath"
	"sort"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Words from which hostile archives are made: few, so that names collide and
// links point at each other.
var (
	fuzzNames = []string{"a", "b", "a/b", "a/b/c", "l", "l/a", "l/m", "l/m/a", "m", "./a", "b/l/a", "/a", "..", "a/../b",
		".wh.a", "a/.wh.b", "l/.wh.a", ".wh..wh..opq", "a/.wh..wh..opq", "l/.wh..wh..opq", "m/b", "."}
	fuzzLinks = []string{"a", "b", "..", "../..", "/", "/a", "l", "m", "a/b", "../canary", "../../outside", "l/../..", "/proc/self/root", ".", "b/.."}
	fuzzKinds = []byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeSymlink, tar.TypeLink, tar.TypeChar, tar.TypeFifo, tar.TypeReg}
)

// entriesOf turns bytes into layers: three bytes an entry, the kind's high
// bit starts a new layer.
func entriesOf(t testing.TB, data []byte) [][]byte {
	var layers [][]byte
	var cur []entry
	for ; len(data) >= 3 && len(cur) < 64; data = data[3:] {
		e := entry{kind: fuzzKinds[int(data[0]&0x7f)%len(fuzzKinds)], name: fuzzNames[int(data[1])%len(fuzzNames)], mode: int64(data[2]) | 0o200}
		switch e.kind {
		case tar.TypeReg:
			e.body = "body"
			if e.name == "." {
				e.kind, e.body = tar.TypeDir, ""
			}
		case tar.TypeSymlink, tar.TypeLink:
			e.link = fuzzLinks[int(data[2])%len(fuzzLinks)]
		}
		cur = append(cur, e)
		if data[0]&0x80 != 0 {
			layers = append(layers, makeTar(t, cur...))
			cur = nil
		}
	}
	return append(layers, makeTar(t, cur...))
}

// Whatever the entries, nothing outside changes, and what the unpacker
// believes is what is on disk.
func FuzzUnpackEntries(f *testing.F) {
	f.Add([]byte{2, 4, 10, 0, 5, 0, 0x80, 16, 0, 0, 5, 0})
	f.Add([]byte{2, 4, 1, 2, 1, 6, 0, 5, 0})
	f.Add([]byte{0, 2, 0, 4, 0, 8, 0x81, 0, 0, 0, 14, 0, 0, 17, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		j := newJail(t)
		u, err := j.unpack(t.Context(), Limits{}, entriesOf(t, data)...)
		j.check(t)
		if u == nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(modelTree(u.tree.root), j.tree(t)); diff != "" {
			t.Errorf("the model and the disk differ (-model +disk), after %v:\n%s", err, diff)
		}
	})
}

// modelTree lists the unpacker's tree as jail.tree lists the disk.
func modelTree(root *node) []string {
	var out []string
	var visit func(n *node, at string)
	visit = func(n *node, at string) {
		for name, kid := range n.kids {
			full := filepath.Join(at, name)
			switch kid.kind {
			case kindDir:
				out = append(out, full+"/")
				visit(kid, full)
			case kindLink:
				out = append(out, full+" -> "+kid.target)
			default:
				out = append(out, full)
			}
		}
	}
	visit(root, "")
	sort.Strings(out)
	return out
}
