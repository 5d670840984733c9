package imagebuild

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// fileLayer is a packed layer in a file. It is packed once: large trees take
// a while.
type fileLayer struct {
	file         string
	Packed, Diff v1.Hash
	Bytes        int64
}

func (l *fileLayer) Digest() (v1.Hash, error)            { return l.Packed, nil }
func (l *fileLayer) DiffID() (v1.Hash, error)            { return l.Diff, nil }
func (l *fileLayer) Size() (int64, error)                { return l.Bytes, nil }
func (l *fileLayer) MediaType() (types.MediaType, error) { return types.OCILayerZStd, nil }
func (l *fileLayer) Compressed() (io.ReadCloser, error)  { return os.Open(l.file) }
func (l *fileLayer) Uncompressed() (io.ReadCloser, error) {
	return nil, fmt.Errorf("not kept unpacked")
}

// Layer packs the tree into a file and returns it as a layer.
func (t *Tree) Layer(file string) (v1.Layer, error) {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".layer-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	packed, diff := sha256.New(), sha256.New()
	z, err := zstd.NewWriter(io.MultiWriter(tmp, packed), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
	if err != nil {
		return nil, err
	}
	if err := t.writeTar(io.MultiWriter(z, diff)); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	info, err := tmp.Stat()
	if err != nil {
		return nil, err
	}
	l := &fileLayer{file: file, Bytes: info.Size(),
		Packed: v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", packed.Sum(nil))},
		Diff:   v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", diff.Sum(nil))}}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return nil, err
	}
	note, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	// Last: a layer without its note is packed again.
	return l, os.WriteFile(file+".json", note, 0o600)
}

// packedLayer returns a layer that was packed before, or nil.
func packedLayer(file string) v1.Layer {
	data, err := os.ReadFile(file + ".json")
	if err != nil {
		return nil
	}
	l := &fileLayer{file: file}
	if json.Unmarshal(data, l) != nil {
		return nil
	}
	if info, err := os.Stat(file); err != nil || info.Size() != l.Bytes {
		return nil
	}
	return l
}

// Image puts layers and a configuration together, for this machine.
func Image(cfg v1.Config, layers ...v1.Layer) (v1.Image, error) {
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layers...)
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, cfg
	return mutate.ConfigFile(img, file)
}
