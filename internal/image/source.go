package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// Kind is where a source's files come from. The zero value is no source.
type Kind uint8

// The kinds of source.
const (
	Unknown   Kind = iota
	Host           // the host's own system directories
	Directory      // a directory with a root filesystem, used where it stands
	Layout         // an OCI layout directory
	Archive        // a docker-archive, oci-archive or plain root filesystem tar
	Registry       // a reference in a registry
)

// String returns the kind in one word.
func (k Kind) String() string {
	return [...]string{"unknown", "host", "directory", "layout", "archive", "registry"}[min(k, Registry)]
}

// Source is a resolved --from.
type Source struct {
	Kind      Kind
	Typed     string // what the person wrote
	Path      string // absolute, for the local kinds
	Tag       string // image inside a layout that holds several
	Reference string // full, for Registry
	Note      string // what the word became, for the person; may be empty
	Entry     *Entry // the catalogue entry it came from, or nil
	ref       name.Reference
	near      string // a local path that the person may have meant, or empty
}

// ResolveOptions say what Resolve may use.
type ResolveOptions struct {
	// Local allows directories and archives of this machine. It is off by
	// default: a gateway must not read its own disk for a remote caller.
	Local bool
	// Dir is what relative paths start from; the working directory if empty.
	Dir string
	// Home is what ~/ means; not expanded if empty.
	Home string
	// Catalogue is looked up for bare words; nil means the shipped one.
	Catalogue *Catalogue
	// CommunityRegistry is the value of OPENSHELL_COMMUNITY_REGISTRY.
	CommunityRegistry string
}

// Resolve decides what a --from value means. It looks at the local disk if
// that is allowed and at nothing else.
func Resolve(source string, o ResolveOptions) (Source, error) {
	src := Source{Typed: source}
	switch {
	case source == "" || source == "host":
		src.Kind = Host
		return src, nil
	case strings.TrimSpace(source) != source || strings.ContainsAny(source, "\x00\n\r\t"):
		return src, fault.New(fault.InvalidArgument, "%q is not an image: it has white space or control characters", source).On("from")
	case strings.HasPrefix(source, "http://") || strings.HasPrefix(source, "https://"):
		_, rest, _ := strings.Cut(source, "://")
		return src, fault.New(fault.InvalidArgument, "%q is a web address, not an image reference", source).
			Hint("--from %s", rest).On("from")
	}
	if looksLocal(source) || archiveName(source) {
		if local, found, err := resolveLocal(src, o); err != nil || found {
			return local, err
		}
	}
	if o.Local && !archiveName(source) {
		if _, err := os.Stat(filepath.Join(o.Dir, source)); err == nil {
			src.near = "./" + source
		}
	}
	return resolveReference(src, o)
}

// looksLocal is the rule of cli-0.1.md 2.3: absolute, dotted, ~/, or a bare
// word like a Dockerfile.
func looksLocal(s string) bool {
	return s == "." || s == ".." || strings.HasPrefix(s, "/") || strings.HasPrefix(s, "./") ||
		strings.HasPrefix(s, "../") || strings.HasPrefix(s, "~/") || dockerfileName(s)
}

func dockerfileName(s string) bool {
	base := strings.ToLower(filepath.Base(s))
	return !strings.ContainsAny(s, ":/") && (strings.Contains(base, "dockerfile") || strings.Contains(base, "containerfile"))
}

func archiveName(s string) bool {
	for _, suffix := range []string{".tar", ".tar.gz", ".tgz", ".tar.zst"} {
		if strings.HasSuffix(strings.ToLower(s), suffix) {
			return true
		}
	}
	return false
}

// resolveLocal handles a source that looks like a path. found is false for an
// archive-like name that does not exist: it may still be a reference.
func resolveLocal(src Source, o ResolveOptions) (_ Source, found bool, _ error) {
	if !o.Local {
		if !looksLocal(src.Typed) {
			return src, false, nil
		}
		return src, false, fault.New(fault.InvalidArgument, "%q is a path of your machine, which this gateway cannot see", src.Typed).
			Hint("%s run --from %s -- COMMAND", brand.CLI, src.Typed).On("from")
	}
	file := src.Typed
	if rest, ok := strings.CutPrefix(file, "~/"); ok && o.Home != "" {
		file = filepath.Join(o.Home, rest)
	}
	if !filepath.IsAbs(file) {
		dir := o.Dir
		if dir == "" {
			wd, err := os.Getwd()
			if err != nil {
				return src, false, fault.New(fault.FailedPrecondition, "the working directory is gone").Cause(err)
			}
			dir = wd
		}
		file = filepath.Join(dir, file)
	}
	real, err := filepath.EvalSymlinks(file)
	if errors.Is(err, fs.ErrNotExist) {
		if dir, tag, ok := cutTag(file); ok {
			return withTag(src, dir, tag)
		}
		if !looksLocal(src.Typed) {
			return src, false, nil
		}
		if dockerfileName(src.Typed) {
			return src, false, buildHint(src.Typed, ".")
		}
		return src, false, fault.New(fault.NotFound, "there is no %q", src.Typed).
			Hint("ls -ld %s; an image reference has no leading / or ./", filepath.Dir(file)).Cause(err).On("from")
	}
	if err != nil {
		return src, false, fault.New(fault.PermissionDenied, "%q cannot be opened", src.Typed).Cause(err).On("from")
	}
	src.Path = real
	info, err := os.Stat(real)
	if err != nil {
		return src, false, fault.New(fault.PermissionDenied, "%q cannot be opened", src.Typed).Cause(err).On("from")
	}
	src, err = localKind(src, info)
	return src, err == nil, err
}

func localKind(src Source, info fs.FileInfo) (Source, error) {
	base := strings.ToLower(filepath.Base(src.Path))
	switch {
	case info.IsDir() && src.Path == "/":
		return src, fault.New(fault.InvalidArgument, "the host's root directory is not an image").Hint("--from host").On("from")
	case info.IsDir() && exists(src.Path, "oci-layout"):
		src.Kind = Layout
	case info.IsDir() && rootfsLike(src.Path):
		src.Kind = Directory
	case info.IsDir() && (exists(src.Path, "Dockerfile") || exists(src.Path, "Containerfile")):
		return src, buildHint(src.Typed, src.Typed)
	case info.IsDir():
		return src, fault.New(fault.InvalidArgument, "%q holds neither a root filesystem (no bin, usr or etc) nor an OCI layout", src.Typed).On("from")
	case strings.Contains(base, "dockerfile") || strings.Contains(base, "containerfile"):
		return src, buildHint(src.Typed, filepath.Dir(src.Typed))
	case info.Mode().IsRegular():
		src.Kind = Archive
	default:
		return src, fault.New(fault.InvalidArgument, "%q is neither a directory nor a file", src.Typed).On("from")
	}
	return src, nil
}

func exists(dir, file string) bool {
	_, err := os.Lstat(filepath.Join(dir, file))
	return err == nil
}

func rootfsLike(dir string) bool {
	for _, d := range []string{"bin", "usr", "etc", "sbin", "lib", "nix"} {
		if info, err := os.Stat(filepath.Join(dir, d)); err == nil && info.IsDir() {
			return true
		}
	}
	// bin -> usr/bin with usr missing is nobody's root filesystem, but an
	// absolute link may point outside of it and still be one.
	info, err := os.Lstat(filepath.Join(dir, "bin"))
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// cutTag splits layout:tag.
func cutTag(file string) (dir, tag string, ok bool) {
	i := strings.LastIndexByte(file, ':')
	if i < 0 || strings.Contains(file[i:], "/") || !exists(file[:i], "oci-layout") {
		return "", "", false
	}
	return file[:i], file[i+1:], true
}

func withTag(src Source, dir, tag string) (Source, bool, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return src, false, fault.New(fault.NotFound, "there is no %q", dir).Cause(err)
	}
	src.Kind, src.Path, src.Tag = Layout, real, tag
	return src, true, nil
}

func buildHint(typed, context string) error {
	file := ""
	if context != typed {
		file = " -f " + typed
	}
	return fault.New(fault.Unsupported, "%q is a recipe for an image, not an image", typed).
		Hint("docker build%s -t mine %s && docker save mine -o mine.tar, then --from ./mine.tar", file, context).
		Because("BUILD_UNSUPPORTED").On("from")
}

// resolveReference handles what is not a path: a catalogue word or a
// reference.
func resolveReference(src Source, o ResolveOptions) (Source, error) {
	cat := o.Catalogue
	if cat == nil {
		cat = Builtin()
	}
	prefix := strings.TrimRight(o.CommunityRegistry, "/")
	full := src.Typed
	bare := !strings.ContainsAny(full, "/:.@")
	word := full
	former := false
	if w, ok := cat.formerWord(full); ok {
		word, bare, former = w, true, true
	}
	entry, known := cat.Lookup(word)
	switch {
	case bare && known:
		full = cat.reference(entry, prefix)
		src.Entry = &entry
		if !former || full != src.Typed {
			src.Note = quote(src.Typed) + " is " + full + " in the image catalogue"
		}
	case bare && prefix != "" && !officialNames()[word]:
		full = prefix + "/" + word + ":latest"
		src.Note = quote(word) + " is " + full + " (" + brand.Env("COMMUNITY_REGISTRY") + ")"
	}
	ref, err := name.ParseReference(full)
	if err != nil {
		f := fault.New(fault.InvalidArgument, "%q is not an image reference", src.Typed).Cause(err).On("from")
		if lower := strings.ToLower(src.Typed); lower != src.Typed {
			if _, err := name.ParseReference(lower); err == nil {
				f.Hint("--from %s", lower)
			}
		}
		return src, f
	}
	src.Kind, src.ref = Registry, ref
	src.Reference = plainName(ref)
	if bare && src.Entry == nil && src.Note == "" {
		src.Note = quote(word) + " is " + src.Reference
	}
	return src, nil
}

// plainName is a reference as people write it.
func plainName(ref name.Reference) string {
	full := ref.Name()
	if rest, ok := strings.CutPrefix(full, name.DefaultRegistry+"/"); ok {
		return "docker.io/" + rest
	}
	return full
}

func quote(s string) string { return `"` + s + `"` }
