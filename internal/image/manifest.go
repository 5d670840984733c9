package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"openshell.dev/openshell/internal/fault"
)

// plan is all that is known of an image before its layers are read.
type plan struct {
	id       v1.Hash // of the config: names what is in the image, not how it is packed
	manifest string  // digest of the manifest, empty for a docker-archive
	config   Config
	layers   []layer
}

// layer is one archive of files.
type layer struct {
	desc   v1.Descriptor // zero digest: only the diff id is known
	diffID v1.Hash
	open   func(context.Context) (io.ReadCloser, error)
}

const maxIndexes = 3 // an index within an index within an index

// readPlan follows indexes to the manifest of the wanted platform and reads
// its config, verifying every digest on the way.
func readPlan(ctx context.Context, o origin, want v1.Platform, l Limits) (*plan, error) {
	raw, mt, err := o.top(ctx)
	if err != nil {
		return nil, err
	}
	for range maxIndexes {
		if !isIndex(raw, mt) {
			return readManifest(ctx, o, raw, want, l)
		}
		desc, err := choose(raw, want)
		if err != nil {
			return nil, err
		}
		if raw, err = o.manifest(ctx, desc); err != nil {
			return nil, err
		}
		if err := verifyBytes(raw, desc.Digest); err != nil {
			return nil, err
		}
		mt = desc.MediaType
	}
	return nil, malformed("its indexes are nested too deeply")
}

// isIndex trusts what the document says of itself over what a server says.
func isIndex(raw []byte, mt types.MediaType) bool {
	var probe struct {
		MediaType types.MediaType   `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
		Layers    []json.RawMessage `json:"layers"`
	}
	if json.Unmarshal(raw, &probe) != nil {
		return false
	}
	if probe.MediaType != "" {
		return probe.MediaType.IsIndex()
	}
	if probe.Manifests != nil || probe.Layers != nil {
		return probe.Manifests != nil
	}
	return mt.IsIndex()
}

// choose picks the manifest of a platform from an index.
func choose(raw []byte, want v1.Platform) (v1.Descriptor, error) {
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return v1.Descriptor{}, malformed("its index cannot be read (%v)", err)
	}
	var exact, silent []v1.Descriptor // of this platform; saying nothing of one
	offered := map[string]bool{}
	for _, d := range index.Manifests {
		if !d.MediaType.IsImage() && !d.MediaType.IsIndex() && d.MediaType != "" {
			continue
		}
		p := d.Platform
		switch {
		case p == nil || p.OS == "" && p.Architecture == "":
			silent = append(silent, d) // its config will say
		case p.OS == "unknown": // attestations
		default:
			offered[p.OS+"/"+p.Architecture] = true
			if p.OS == want.OS && p.Architecture == want.Architecture {
				exact = append(exact, d)
			}
		}
	}
	fit := exact
	if len(fit) == 0 {
		fit = silent
	}
	if len(fit) == 0 {
		return v1.Descriptor{}, fault.New(fault.NotFound, "the image has no %s/%s variant, it offers %s",
			want.OS, want.Architecture, strings.Join(slices.Sorted(maps.Keys(offered)), ", ")).Because("PLATFORM_MISSING")
	}
	names := map[string]bool{}
	for _, d := range fit {
		names[d.Annotations[refNameAnnotation]] = true
	}
	if len(names) > 1 || len(exact) == 0 && len(fit) > 1 {
		return v1.Descriptor{}, fault.New(fault.InvalidArgument, "the layout holds %d images, name one of %.200q",
			len(fit), slices.Sorted(maps.Keys(names))).Hint("--from ./DIRECTORY:NAME")
	}
	if len(exact) == 0 {
		return fit[0], nil
	}
	return variant(fit), nil
}

// variant prefers the manifest without a CPU variant, then the first: a
// variant such as v3 asks for more than this machine may have. For arm64, v8
// is the plain one.
func variant(fit []v1.Descriptor) v1.Descriptor {
	for _, d := range fit {
		if v := d.Platform.Variant; v == "" || v == "v8" || v == "v1" {
			return d
		}
	}
	return fit[0]
}

func readManifest(ctx context.Context, o origin, raw []byte, want v1.Platform, l Limits) (*plan, error) {
	var m v1.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, malformed("its manifest cannot be read (%v)", err)
	}
	if m.SchemaVersion != 2 {
		return nil, fault.New(fault.Unsupported, "the image is of the old manifest schema %d", m.SchemaVersion).
			Hint("push it again with a current builder")
	}
	if !m.Config.MediaType.IsConfig() {
		return nil, fault.New(fault.Unsupported, "this is no container image but %q", string(m.Config.MediaType))
	}
	if m.Config.Size > configMax || m.Config.Size <= 0 {
		return nil, malformed("its configuration is %d bytes long", m.Config.Size)
	}
	if len(m.Layers) > l.Layers {
		return nil, overLimit("it has more than %d layers", l.Layers)
	}
	data, err := readBlob(ctx, o, m.Config)
	if err != nil {
		return nil, err
	}
	sum, _, err := v1.SHA256(strings.NewReader(string(raw)))
	if err != nil {
		return nil, err
	}
	p := &plan{id: m.Config.Digest, manifest: sum.String()}
	diffIDs, err := p.readConfig(data, want)
	if err != nil {
		return nil, err
	}
	if len(diffIDs) != len(m.Layers) {
		return nil, malformed("it has %d layers and %d diff ids", len(m.Layers), len(diffIDs))
	}
	var total int64
	for i, d := range m.Layers {
		if err := layerAllowed(d); err != nil {
			return nil, err
		}
		if total += d.Size; d.Size < 0 || total > l.Download || total < 0 {
			return nil, overLimit("its layers are larger than %s", byteSize(l.Download))
		}
		p.layers = append(p.layers, layer{desc: d, diffID: diffIDs[i], open: func(ctx context.Context) (io.ReadCloser, error) {
			return o.blob(ctx, d)
		}})
	}
	return p, nil
}

// layerAllowed refuses layers that are to be fetched from anywhere, and those
// that we cannot read.
func layerAllowed(d v1.Descriptor) error {
	if len(d.URLs) > 0 {
		return fault.New(fault.Unsupported, "a layer of the image is to be fetched from another server")
	}
	if _, err := v1.NewHash(d.Digest.String()); err != nil {
		return malformed("a layer has no usable digest")
	}
	if !d.MediaType.IsLayer() || !d.MediaType.IsDistributable() {
		return fault.New(fault.Unsupported, "a layer of the image is of kind %q", string(d.MediaType))
	}
	return nil
}

func readBlob(ctx context.Context, o origin, d v1.Descriptor) ([]byte, error) {
	rc, err := o.blob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	data, err := io.ReadAll(io.LimitReader(rc, d.Size+1))
	if err != nil {
		return nil, fmt.Errorf("reading the configuration of the image: %w", err)
	}
	if int64(len(data)) != d.Size {
		return nil, malformed("its configuration is not %d bytes long", d.Size)
	}
	return data, verifyBytes(data, d.Digest)
}

// readConfig takes over what we use of an image configuration.
func (p *plan) readConfig(data []byte, want v1.Platform) ([]v1.Hash, error) {
	var c v1.ConfigFile
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, malformed("its configuration cannot be read (%v)", err)
	}
	if c.OS != "" && c.OS != want.OS || c.Architecture != "" && c.Architecture != want.Architecture {
		return nil, fault.New(fault.NotFound, "the image is for %s/%s, this machine needs %s/%s",
			c.OS, c.Architecture, want.OS, want.Architecture).Because("PLATFORM_MISSING")
	}
	if c.RootFS.Type != "" && c.RootFS.Type != "layers" {
		return nil, malformed("its root filesystem is of kind %q", c.RootFS.Type)
	}
	for _, d := range c.RootFS.DiffIDs {
		if _, err := v1.NewHash(d.String()); err != nil {
			return nil, malformed("a diff id is none")
		}
	}
	p.config = Config{
		User: c.Config.User, Env: c.Config.Env, WorkingDir: c.Config.WorkingDir,
		Entrypoint: c.Config.Entrypoint, Cmd: c.Config.Cmd, Labels: c.Config.Labels,
		ExposedPorts: slices.Sorted(maps.Keys(c.Config.ExposedPorts)),
		Volumes:      slices.Sorted(maps.Keys(c.Config.Volumes)),
		StopSignal:   c.Config.StopSignal,
	}
	return c.RootFS.DiffIDs, nil
}
