package imagebuild

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// Versions of what the images hold. OPENSHELL_TEST_OPENCLAW names another one
// of OpenClaw, "latest" included.
var (
	NodeVersions    = map[int]string{22: "22.23.3", 24: "24.21.0", 26: "26.10.0"}
	OpenClawVersion = "2026.9.6"
)

// ErrUnavailable is what a test skips on: the npm client or what it fetches
// cannot be had here.
var ErrUnavailable = errors.New("not available on this machine")

// CacheDir is where fetched packages and packed layers are kept.
func CacheDir() (string, error) {
	dir := os.Getenv("OPENSHELL_TEST_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(base, "openshell-test")
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// locked runs f while no other process prepares the same thing.
func locked(name string, f func(dir string) error) error {
	dir, err := CacheDir()
	if err != nil {
		return err
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

// NPM installs packages (name@version) with the npm client, without running
// their scripts, and returns the directory that holds node_modules. A set
// that was installed before is used again.
func NPM(ctx context.Context, packages ...string) (string, error) {
	name := "npm-" + strings.NewReplacer("/", "_", "@", "-").Replace(strings.Join(packages, "+"))
	var out string
	err := locked(name, func(dir string) error {
		out = filepath.Join(dir, name)
		if _, err := os.Stat(filepath.Join(out, "node_modules")); err == nil {
			return nil
		}
		npm, err := exec.LookPath("npm")
		if err != nil {
			return fmt.Errorf("npm: %w", ErrUnavailable)
		}
		tmp, err := os.MkdirTemp(dir, ".npm-*")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		args := append([]string{"install", "--prefix", tmp, "--no-audit", "--no-fund", "--ignore-scripts", "--omit=dev", "--loglevel=error"}, packages...)
		cmd := exec.CommandContext(ctx, npm, args...)
		cmd.Dir = tmp
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("npm install %s: %w: %v\n%.2000s", strings.Join(packages, " "), ErrUnavailable, err, text)
		}
		if err := os.Chmod(tmp, 0o755); err != nil {
			return err
		}
		return os.Rename(tmp, out)
	})
	return out, err
}

// Node returns the path of the node program of a major version (22, 24, 26).
func Node(ctx context.Context, major int) (string, error) {
	version, ok := NodeVersions[major]
	arch, known := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	if !ok || !known {
		return "", fmt.Errorf("node %d for %s: %w", major, runtime.GOARCH, ErrUnavailable)
	}
	pkg := "node-linux-" + arch
	dir, err := NPM(ctx, pkg+"@"+version)
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
	node, err := Node(ctx, major)
	if err != nil {
		return nil, err
	}
	return layerOf("layer-node-"+NodeVersions[major], func() (*Tree, error) {
		return NewTree().Binary("/usr/local/bin/node", node), nil
	})
}

// NodeImage is Base with node of a major version.
func NodeImage(ctx context.Context, major int) (v1.Image, error) {
	base, err := BaseLayer()
	if err != nil {
		return nil, err
	}
	node, err := NodeLayer(ctx, major)
	if err != nil {
		return nil, err
	}
	return Image(v1.Config{User: "sandbox", WorkingDir: "/sandbox", Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin"}}, base, node)
}

// The start script of the OpenClaw image, under the name that its users type.
const openclawStart = `#!/bin/sh
exec openclaw gateway --allow-unconfigured --bind loopback "$@"
`

// OpenClaw is Base with Node 24, the openclaw package and openclaw-start.
func OpenClaw(ctx context.Context) (v1.Image, error) {
	version := OpenClawVersion
	if v := os.Getenv("OPENSHELL_TEST_OPENCLAW"); v != "" {
		version = v
	}
	base, err := BaseLayer()
	if err != nil {
		return nil, err
	}
	node, err := NodeLayer(ctx, 24)
	if err != nil {
		return nil, err
	}
	dir, err := NPM(ctx, "openclaw@"+version)
	if err != nil {
		return nil, err
	}
	claw, err := layerOf("layer-openclaw-"+version, func() (*Tree, error) {
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
	}, base, node, claw)
}
