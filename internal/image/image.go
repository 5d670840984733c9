// Package image decides where the files of a sandbox come from and puts them
// on disk.
//
// It owns the meaning of a source ("host", a directory, an OCI layout, an
// archive, a registry reference, a catalogue word), the pull from a registry,
// the unpacking of layers without any privilege into a content-addressed
// cache, and what an image says about its process (user, environment, working
// directory, command).
//
// It guarantees that nothing outside the cache directory changes, whatever a
// registry or an archive sends; that every byte that is published was checked
// against the digest that named it; that an image appears whole or not at
// all; and that nothing of an image is ever executed. Work is bounded by
// Limits. It keeps no ownership, no special files, no extended attributes and
// no set-id bits: the files belong to the caller.
//
// It does not mount, does not decide who may use which source, and does not
// build images. The control side and the command line call it.
package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// PolicyPath is where an image may carry a policy of its own.
const PolicyPath = "/etc/" + brand.Name + "/policy.yaml"

const policyMax = 1 << 20

// Config is what an image says about the process it is made for.
type Config struct {
	User         string            `json:"user,omitempty"`
	Env          []string          `json:"env,omitempty"`
	WorkingDir   string            `json:"working_dir,omitempty"`
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Cmd          []string          `json:"cmd,omitempty"`
	ExposedPorts []string          `json:"exposed_ports,omitempty"` // "8080/tcp", sorted
	Volumes      []string          `json:"volumes,omitempty"`       // sorted
	Labels       map[string]string `json:"labels,omitempty"`
	StopSignal   string            `json:"stop_signal,omitempty"`
}

// Dropped counts what unpacking left out on purpose.
type Dropped struct {
	Devices int `json:"devices,omitempty"` // device nodes, fifos, sockets
	SetID   int `json:"set_id,omitempty"`  // set-user-id and set-group-id bits
	Xattrs  int `json:"xattrs,omitempty"`  // entries with extended attributes
	Owners  int `json:"owners,omitempty"`  // entries that named another owner than 0:0
}

// Image is an unpacked source. The host has neither ID nor RootfsDir.
// Close it when the sandbox no longer uses it.
type Image struct {
	ID        string    `json:"id"`                 // "sha256:...", empty for the host and a directory
	Manifest  string    `json:"manifest,omitempty"` // manifest digest the image was first pulled as
	Reference string    `json:"reference,omitempty"`
	RootfsDir string    `json:"-"` // absolute
	Config    Config    `json:"config"`
	Bytes     int64     `json:"bytes"`
	Entries   int       `json:"entries"`
	Dropped   Dropped   `json:"dropped"`
	Created   time.Time `json:"created"` // when it was unpacked here
	Survey    Survey    `json:"survey"`  // what the files must still amount to after a power cut
	// PolicyFile is the host path of the policy inside the image, or empty.
	// Read it with ReadPolicy, which follows nothing.
	PolicyFile string `json:"-"`
	// Notes are sentences for the person who asked: what the source became,
	// what was left out.
	Notes []string `json:"-"`

	lease *lock
}

// Close tells upkeep that this process no longer uses the image. It may be
// called more than once.
func (i *Image) Close() error {
	if i == nil || i.lease == nil {
		return nil
	}
	err := i.lease.unlock()
	i.lease = nil
	return err
}

// Host reports whether the sandbox sees the host's own system directories.
func (i *Image) Host() bool { return i.RootfsDir == "" }

// ReadPolicy returns the policy file of the image, or nil if it has none. A
// policy that is not a plain file of at most 1 MiB is an error, because an
// image whose policy cannot be read must not run with another one.
func (i *Image) ReadPolicy() ([]byte, error) {
	if i.Host() {
		return nil, nil
	}
	return readPlain(i.RootfsDir, PolicyPath, policyMax)
}

// readPlain reads a regular file below dir. It follows no symbolic link that
// leaves dir, and none in the last place. A missing file is nil, nil.
func readPlain(dir, name string, limit int64) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return readPlainAt(root, name[1:], limit)
}

func readPlainAt(root *os.Root, name string, limit int64) ([]byte, error) {
	before, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	f, err := root.OpenFile(name, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	after, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(before, after) {
		return nil, fmt.Errorf("%s changed while it was opened", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes", name, limit)
	}
	return data, nil
}

// locate fills what follows from the root directory.
func (i *Image) locate(rootfs string) {
	i.RootfsDir = rootfs
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return
	}
	defer root.Close()
	if _, err := root.Lstat(PolicyPath[1:]); err == nil {
		i.PolicyFile = filepath.Join(rootfs, PolicyPath)
	}
}

// directory is the image of a plain directory: used where it stands.
func directory(src Source) (*Image, error) {
	info, err := os.Stat(src.Path)
	if err != nil || !info.IsDir() {
		return nil, fault.New(fault.NotFound, "the directory %q is gone", src.Path).Cause(err)
	}
	img := &Image{Reference: src.Path, Created: info.ModTime()}
	img.locate(src.Path)
	return img, nil
}

func (i *Image) marshal() ([]byte, error) { return json.MarshalIndent(i, "", "  ") }
