package mounts

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sample() Plan {
	return Plan{
		{Kind: Tmpfs, Target: "/", Size: 1 << 20, Mode: 0o755, Why: "the root"},
		{Kind: Bind, Source: "/usr", Target: "/usr", Flags: ReadOnly, Why: "programs"},
		{Kind: Symlink, Source: "usr/bin", Target: "/bin"},
		{Kind: File, Target: "/etc/hosts", Mode: 0o644, Data: []byte("127.0.0.1 localhost\n")},
		{Kind: Seal, Target: "/"},
	}
}

func TestAPlanSurvivesTheWire(t *testing.T) {
	for name, p := range map[string]Plan{
		"tmpfs root": sample(),
		"overlay":    {OverlayRoot([]string{"/a:b", "/c,d"}, "/up", "/work", "layers")},
		"read-only overlay": {
			OverlayRoot([]string{"/a", "/b"}, "", "", "layers")},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := p.Append([]byte("before"))
			if err != nil {
				t.Fatal(err)
			}
			got, err := Decode(b[len("before"):])
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(p, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestABadPlanIsRefused(t *testing.T) {
	root := Op{Kind: Tmpfs, Target: "/"}
	for name, p := range map[string]Plan{
		"empty":               {},
		"no root":             {{Kind: Dir, Target: "/a"}},
		"two roots":           {root, root},
		"unknown kind":        {root, {Kind: kinds, Target: "/a"}},
		"zero kind":           {root, {Target: "/a"}},
		"unknown flag":        {root, {Kind: Dir, Target: "/a", Flags: allFlags + 1}},
		"relative target":     {root, {Kind: Dir, Target: "a"}},
		"dots":                {root, {Kind: Dir, Target: "/a/../b"}},
		"double slash":        {root, {Kind: Dir, Target: "/a//b"}},
		"trailing slash":      {root, {Kind: Dir, Target: "/a/"}},
		"nul":                 {root, {Kind: Dir, Target: "/a\x00b"}},
		"bind without source": {root, {Kind: Bind, Target: "/a"}},
		"bind with dots":      {root, {Kind: Bind, Source: "/a/..", Target: "/a"}},
		"empty link":          {root, {Kind: Symlink, Target: "/a"}},
		"late overlay":        {root, {Kind: Overlay, Target: "/a", Data: []byte("\x00/l")}},
		"overlay without low": {{Kind: Overlay, Target: "/"}},
		"upper without work":  {OverlayRoot([]string{"/l"}, "/up", "", "")},
		"data too long":       {root, {Kind: File, Target: "/a", Data: make([]byte, MaxData+1)}},
		"too many":            append(Plan{root}, make(Plan, MaxOps)...),
		"too long a path":     {root, {Kind: Dir, Target: "/" + strings.Repeat("a", MaxPath)}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := p.Append(nil); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestDamagedBytesAreRefused(t *testing.T) {
	good, err := sample().Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := Decode(good[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are accepted", n, len(good))
		}
	}
	if _, err := Decode(append(bytes.Clone(good), 0)); err == nil {
		t.Error("a byte too many is accepted")
	}
	long := append([]byte{codecVersion, 0x85, 0x00}, good[2:]...) // 5 in two bytes
	if _, err := Decode(long); err == nil {
		t.Error("a long form of a number is accepted")
	}
}

// Property: what is decoded has exactly one encoding, the one it came from.
func FuzzDecode(f *testing.F) {
	for _, p := range []Plan{sample(), {OverlayRoot([]string{"/a"}, "/u", "/w", "")}} {
		b, err := p.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Decode(b)
		if err != nil {
			return
		}
		again, err := p.Append(nil)
		if err != nil {
			t.Fatalf("decoded, but cannot be encoded: %v", err)
		}
		if !bytes.Equal(b, again) {
			t.Fatalf("two encodings of one plan:\n%x\n%x", b, again)
		}
	})
}
