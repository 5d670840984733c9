package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"openshell.dev/openshell/internal/fault"
)

// form is what an archive turned out to be.
type form uint8

const (
	formRootfs form = iota + 1
	formDocker
	formOCI
)

const sniffEntries = 4096

// openArchive opens a local archive file, unpacked by its content.
func openArchive(file string, m *meter) (*os.File, io.ReadCloser, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, nil, fault.New(fault.PermissionDenied, "%q cannot be opened", file).Cause(err)
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, nil, fault.New(fault.InvalidArgument, "%q is not a regular file", file).Cause(err)
	}
	z, err := decompress(countPacked{f, m})
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, z, nil
}

// sniff tells image archives from plain root filesystems by their top level.
func sniff(ctx context.Context, file string, l Limits) (form, error) {
	m := &meter{limits: l}
	f, z, err := openArchive(file, m)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	defer z.Close()
	tr := tar.NewReader(ctxReader{ctx, countStream{z, m}})
	n := 0
	onlyImageNames := true
	for ; n < sniffEntries; n++ {
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil && n == 0 {
			return 0, notTar(file, err)
		}
		if err != nil {
			return 0, archiveError(err)
		}
		name := path.Clean("/" + hdr.Name)[1:]
		top, _, _ := strings.Cut(name, "/")
		switch {
		case name == "oci-layout":
			return formOCI, nil
		case name == "manifest.json" && hdr.Typeflag == tar.TypeReg:
			return formDocker, nil
		case slices.Contains(rootDirs, top):
			return formRootfs, nil
		case top != "" && !imageName(top):
			onlyImageNames = false
		}
	}
	switch {
	case n == 0:
		return 0, fault.New(fault.InvalidArgument, "%q is an empty archive", file)
	case onlyImageNames:
		return 0, fault.New(fault.InvalidArgument, "%q looks like an image archive but has no manifest.json and no oci-layout", file)
	}
	return formRootfs, nil
}

// rootDirs are directories that no image archive has at its top.
var rootDirs = []string{"bin", "boot", "dev", "etc", "home", "lib", "lib64", "nix", "opt", "proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var"}

// imageName reports whether a top-level name is one of an image archive.
func imageName(top string) bool {
	hex := strings.TrimPrefix(top, "sha256:")
	hex, _, _ = strings.Cut(hex, ".")
	return top == "blobs" || top == "index.json" || top == "repositories" || isHex64(hex)
}

func notTar(file string, err error) error {
	if f, ok := faultOf(err); ok {
		return f
	}
	return fault.New(fault.InvalidArgument, "%q is not a tar archive", file).Cause(err)
}

func isHex64(s string) bool {
	if len(s) != 64 {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}

// stage writes the blobs of an image archive to a directory of ours, by their
// own names as far as these are ones that such an archive has.
func stage(ctx context.Context, file, dir string, l Limits) error {
	m := &meter{limits: l}
	f, z, err := openArchive(file, m)
	if err != nil {
		return err
	}
	defer f.Close()
	defer z.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	tr := tar.NewReader(ctxReader{ctx, countStream{z, m}})
	buf := make([]byte, 256<<10)
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return archiveError(err)
		}
		if err := m.entry(); err != nil {
			return err
		}
		name := path.Clean("/" + hdr.Name)[1:]
		if !stageable(name) {
			continue
		}
		if err := stageEntry(root, name, hdr, tr, m, l, buf); err != nil {
			return err
		}
	}
}

func stageable(name string) bool {
	parts := strings.Split(name, "/")
	if len(parts) > 3 || len(name) > 512 {
		return false
	}
	for _, p := range parts {
		if p == "" || p == "." || p == ".." || len(p) > 160 {
			return false
		}
	}
	return true
}

func stageEntry(root *os.Root, name string, hdr *tar.Header, body io.Reader, m *meter, l Limits, buf []byte) error {
	if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return malformed("%.80q lies below a file", name)
	}
	switch hdr.Typeflag {
	case tar.TypeReg:
		if m.total += hdr.Size; hdr.Size < 0 || m.total > l.Bytes {
			return overLimit("it unpacks to more than %s", byteSize(l.Bytes))
		}
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if os.IsExist(err) {
			return malformed("it has %.80q twice", name)
		}
		if err != nil {
			return err
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{f}, body, buf)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		return archiveError(err)
	case tar.TypeSymlink: // old docker archives share a layer this way
		target := path.Join(path.Dir(name), hdr.Linkname)
		if path.IsAbs(hdr.Linkname) || !stageable(target) {
			return malformed("%.80q points outside of the archive", name)
		}
		return root.Symlink(hdr.Linkname, name)
	case tar.TypeLink:
		target := path.Clean("/" + hdr.Linkname)[1:]
		if !stageable(target) {
			return malformed("%.80q points outside of the archive", name)
		}
		return root.Link(target, name)
	}
	return nil
}

// dockerManifest is one entry of the manifest.json of a docker-archive.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// dockerPlan reads a staged docker-archive. Its layers are known by their
// diff ids, which the configuration holds and the configuration's digest
// covers.
func dockerPlan(dir, tag string, want v1.Platform, l Limits) (*plan, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	data, err := readPlainAt(root, "manifest.json", manifestMax)
	if err != nil {
		return nil, malformed("its manifest.json cannot be read (%v)", err)
	}
	var list []dockerManifest
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, malformed("its manifest.json cannot be read (%v)", err)
	}
	if len(list) != 1 {
		return nil, fault.New(fault.InvalidArgument, "the archive holds %d images", len(list)).
			Hint("save one image at a time")
	}
	m := list[0]
	config, err := readStaged(root, m.Config, configMax)
	if err != nil {
		return nil, err
	}
	p := &plan{id: v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(config))}}
	diffIDs, err := p.readConfig(config, want)
	if err != nil {
		return nil, err
	}
	if len(diffIDs) != len(m.Layers) {
		return nil, malformed("it has %d layers and %d diff ids", len(m.Layers), len(diffIDs))
	}
	if len(diffIDs) > l.Layers {
		return nil, overLimit("it has more than %d layers", l.Layers)
	}
	for i, name := range m.Layers {
		clean := path.Clean("/" + name)[1:]
		p.layers = append(p.layers, layer{diffID: diffIDs[i], open: func(context.Context) (io.ReadCloser, error) {
			root, err := os.OpenRoot(dir)
			if err != nil {
				return nil, err
			}
			defer root.Close()
			f, err := openPlain(root, clean)
			if err != nil {
				return nil, malformed("it lacks the layer %.100q (%v)", name, err)
			}
			return f, nil
		}})
	}
	return p, nil
}

func readStaged(root *os.Root, name string, limit int64) ([]byte, error) {
	clean := path.Clean("/" + name)[1:]
	if !stageable(clean) {
		return nil, malformed("its configuration is named %.80q", name)
	}
	data, err := readPlainAt(root, clean, limit)
	if err == nil && data == nil {
		err = fmt.Errorf("it is not there")
	}
	if err != nil {
		return nil, malformed("its configuration %.80q cannot be read (%v)", name, err)
	}
	return data, nil
}

// rootfsPlan is the plan of a plain archive: one layer, named by the digest
// of the file as it lies there.
func rootfsPlan(ctx context.Context, file string, l Limits) (*plan, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, ctxReader{ctx, f})
	if err != nil {
		return nil, err
	}
	if n > l.Download {
		return nil, overLimit("%s is larger than %s", filepath.Base(file), byteSize(l.Download))
	}
	id := v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", h.Sum(nil))}
	return &plan{id: id, layers: []layer{{
		desc: v1.Descriptor{Digest: id, Size: n},
		open: func(context.Context) (io.ReadCloser, error) { return os.Open(file) },
	}}}, nil
}
