package imagebuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"openshell.dev/openshell/test/fetched"
)

// ErrUnavailable is what a test skips on: the npm client or what it fetches
// cannot be had here.
var ErrUnavailable = errors.New("not available on this machine")

// locked runs f while no other process prepares the same thing.
func locked(name string, f func(dir string) error) error {
	dir, err := fetched.Dir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil || unix.Access(dir, unix.W_OK) != nil {
		// Another account's: what is packed goes to a place of our own.
		if dir, err = os.UserCacheDir(); err != nil {
			return err
		}
		dir = filepath.Join(dir, "openshell-test")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	lock, err := os.OpenFile(filepath.Join(dir, name+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	return f(dir)
}

// npm installs a package (name@version), unless it is there from before.
func npm(ctx context.Context, pkg string) (string, error) {
	dir, err := fetched.Dir()
	if err != nil {
		return "", err
	}
	out, err := fetched.NPM(ctx, dir, io.Discard, pkg)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return out, nil
}

// node returns the path of the node program of a major version.
func node(ctx context.Context, major int) (string, error) {
	pkg, version, ok := fetched.NodePackage(major)
	if !ok {
		return "", fmt.Errorf("node %d for %s: %w", major, runtime.GOARCH, ErrUnavailable)
	}
	dir, err := npm(ctx, pkg+"@"+version)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "node_modules", pkg, "bin/node"), nil
}

// layerOf packs a tree once under a name. The tree is made only if needed.
func layerOf(name string, make func() (*Tree, error)) (v1.Layer, error) {
	var out v1.Layer
	err := locked(name, func(dir string) error {
		file := filepath.Join(dir, name+".tar.zst")
		if out = packedLayer(file); out != nil {
			return nil
		}
		tree, err := make()
		if err != nil {
			return err
		}
		out, err = tree.Layer(file)
		return err
	})
	return out, err
}

// BaseLayer packs Base. It is packed anew each time, because the host may
// have changed.
func BaseLayer() (v1.Layer, error) {
	var out v1.Layer
	err := locked("layer-base", func(dir string) (err error) {
		out, err = Base().Layer(filepath.Join(dir, "layer-base.tar.zst"))
		return err
	})
	return out, err
}

// NodeLayer is node of a major version at /usr/local/bin, with the libraries
// it needs.
func NodeLayer(ctx context.Context, major int) (v1.Layer, error) {
	program, err := node(ctx, major)
	if err != nil {
		return nil, err
	}
	return layerOf("layer-node-"+fetched.Node[major], func() (*Tree, error) {
		return NewTree().Binary("/usr/local/bin/node", program), nil
	})
}

// NodeImage is Base with node of a major version.
func NodeImage(ctx context.Context, major int) (v1.Image, error) {
	base, err := BaseLayer()
	if err != nil {
		return nil, err
	}
	layer, err := NodeLayer(ctx, major)
	if err != nil {
		return nil, err
	}
	return Image(v1.Config{User: "sandbox", WorkingDir: "/sandbox", Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin"}}, base, layer)
}

// The start script of the OpenClaw image, under the name that its users type.
const openclawStart = `#!/bin/sh
exec openclaw gateway --allow-unconfigured --bind loopback "$@"
`

// OpenClaw is Base with Node 24, the openclaw package and openclaw-start.
// OPENSHELL_TEST_OPENCLAW names another version, "latest" included.
func OpenClaw(ctx context.Context) (v1.Image, error) {
	pkg := fetched.OpenClaw
	if v := os.Getenv("OPENSHELL_TEST_OPENCLAW"); v != "" {
		pkg = "openclaw@" + v
	}
	base, err := BaseLayer()
	if err != nil {
		return nil, err
	}
	nodes, err := NodeLayer(ctx, 24)
	if err != nil {
		return nil, err
	}
	dir, err := npm(ctx, pkg)
	if err != nil {
		return nil, err
	}
	claw, err := layerOf("layer-"+pkg, func() (*Tree, error) {
		return NewTree().
			Copy("/opt/openclaw/node_modules", filepath.Join(dir, "node_modules")).
			Symlink("/usr/local/bin/openclaw", "/opt/openclaw/node_modules/openclaw/openclaw.mjs").
			File("/usr/local/bin/openclaw-start", fs.FileMode(0o755), openclawStart), nil
	})
	if err != nil {
		return nil, err
	}
	return Image(v1.Config{
		User: "sandbox", WorkingDir: "/sandbox", Cmd: []string{"openclaw-start"},
		Env:          []string{"PATH=/usr/local/bin:/usr/bin:/bin", "NODE_ENV=production"},
		ExposedPorts: map[string]struct{}{"18789/tcp": {}},
	}, base, nodes, claw)
}
