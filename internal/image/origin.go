package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// origin is where manifests and blobs come from. What it returns is not
// trusted: the caller verifies every digest.
type origin interface {
	// top returns the manifest or index that the source names, and its media
	// type if the origin knows it.
	top(ctx context.Context) ([]byte, types.MediaType, error)
	// manifest returns a manifest that an index names.
	manifest(ctx context.Context, d v1.Descriptor) ([]byte, error)
	// blob opens a config or a layer.
	blob(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error)
	close()
}

// registryOrigin is a repository in a registry.
type registryOrigin struct {
	ref    name.Reference
	puller *remote.Puller
	guard  *guard
	keys   *keychain
}

func newRegistryOrigin(ref name.Reference, o PullOptions) (*registryOrigin, error) {
	host := ref.Context().RegistryStr()
	g := newGuard(host, o.PlainHTTP)
	if g.local {
		// The library tries HTTPS first and plain HTTP only then.
		insecure, err := reparse(ref, name.Insecure)
		if err != nil {
			return nil, err
		}
		ref = insecure
	}
	keys := &keychain{inner: o.Keychain}
	if o.Keychain == nil {
		keys = defaultKeychain()
	}
	p, err := remote.NewPuller(
		remote.WithTransport(http.RoundTripper(g)),
		remote.WithAuthFromKeychain(authn.Keychain(keys)),
		remote.WithUserAgent(brand.Name+"/"+brand.Version),
		remote.WithRetryBackoff(o.backoff()),
	)
	if err != nil {
		return nil, err
	}
	return &registryOrigin{ref: ref, puller: p, guard: g, keys: keys}, nil
}

func reparse(ref name.Reference, opts ...name.Option) (name.Reference, error) {
	return name.ParseReference(ref.Name(), opts...)
}

func (r *registryOrigin) top(ctx context.Context) ([]byte, types.MediaType, error) {
	d, err := r.puller.Get(ctx, r.ref)
	if err != nil {
		return nil, "", r.explain(err)
	}
	if pinned, ok := r.ref.(name.Digest); ok {
		h, err := v1.NewHash(pinned.DigestStr())
		if err != nil {
			return nil, "", err
		}
		if err := verifyBytes(d.Manifest, h); err != nil {
			return nil, "", err
		}
	}
	return d.Manifest, d.MediaType, nil
}

func (r *registryOrigin) manifest(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	got, err := r.puller.Get(ctx, r.ref.Context().Digest(d.Digest.String()))
	if err != nil {
		return nil, r.explain(err)
	}
	return got.Manifest, nil
}

func (r *registryOrigin) blob(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	l, err := r.puller.Layer(ctx, r.ref.Context().Digest(d.Digest.String()))
	if err != nil {
		return nil, r.explain(err)
	}
	rc, err := l.Compressed()
	if err != nil {
		return nil, r.explain(err)
	}
	return rc, nil
}

func (r *registryOrigin) close() { r.guard.close() }

// layoutOrigin is an OCI layout directory. It is read through os.Root, so no
// link in it leads out, and only plain files count.
type layoutOrigin struct {
	root *os.Root
	tag  string
	what string // how the person named it
	want v1.Platform
}

func newLayoutOrigin(dir, tag, what string, want v1.Platform) (*layoutOrigin, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	var marker struct {
		Version string `json:"imageLayoutVersion"`
	}
	data, err := readPlainAt(root, "oci-layout", 4096)
	if err == nil {
		err = json.Unmarshal(data, &marker)
	}
	if err != nil || !strings.HasPrefix(marker.Version, "1.") {
		root.Close()
		return nil, malformed("%q is not an OCI layout of version 1", what)
	}
	return &layoutOrigin{root, tag, what, want}, nil
}

const refNameAnnotation = "org.opencontainers.image.ref.name"

func (l *layoutOrigin) top(ctx context.Context) ([]byte, types.MediaType, error) {
	data, err := readPlainAt(l.root, "index.json", manifestMax)
	if err != nil || data == nil {
		return nil, "", malformed("%q has no readable index.json", l.what)
	}
	if l.tag == "" {
		return data, types.OCIImageIndex, nil
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, "", malformed("%q: index.json: %v", l.what, err)
	}
	var names []string
	for _, d := range index.Manifests {
		n := d.Annotations[refNameAnnotation]
		if n == l.tag || d.Digest.String() == l.tag || strings.HasSuffix(n, ":"+l.tag) {
			raw, err := l.manifest(ctx, d)
			return raw, d.MediaType, err
		}
		names = append(names, n)
	}
	return nil, "", fault.New(fault.NotFound, "%q has no image named %q, it has %.200q", l.what, l.tag, names)
}

func (l *layoutOrigin) manifest(_ context.Context, d v1.Descriptor) ([]byte, error) {
	name, err := blobName(d.Digest)
	if err != nil {
		return nil, err
	}
	data, err := readPlainAt(l.root, name, manifestMax)
	if err == nil && data == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, malformed("%q lacks the manifest %s (%v)", l.what, d.Digest, err)
	}
	return data, verifyBytes(data, d.Digest)
}

func (l *layoutOrigin) blob(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	name, err := blobName(d.Digest)
	if err != nil {
		return nil, err
	}
	f, err := openPlain(l.root, name)
	if err != nil {
		return nil, malformed("%q lacks the layer %s (%v)", l.what, d.Digest, err)
	}
	return f, nil
}

func (l *layoutOrigin) close() { l.root.Close() }

func blobName(h v1.Hash) (string, error) {
	if _, err := v1.NewHash(h.String()); err != nil {
		return "", malformed("the digest %.80q is none", h.String())
	}
	return "blobs/" + h.Algorithm + "/" + h.Hex, nil
}

// openPlain opens a regular file below root for reading.
func openPlain(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// verifyBytes compares bytes with the digest that named them.
func verifyBytes(data []byte, want v1.Hash) error {
	h, err := v1.Hasher(want.Algorithm)
	if err != nil {
		return malformed("the digest %.80q is of an unknown kind", want.String())
	}
	if _, err := io.Copy(h, bytes.NewReader(data)); err != nil {
		return err
	}
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != want.Hex {
		return digestFault("a manifest", want, got)
	}
	return nil
}

func digestFault(what string, want v1.Hash, got string) error {
	return fault.New(fault.FailedPrecondition, "%s does not match its digest: want %s, got %s:%s", what, want, want.Algorithm, got).
		Hint("the image was changed or damaged on its way; pull it again, and tell its publisher if that does not help").
		Because("DIGEST_MISMATCH")
}
