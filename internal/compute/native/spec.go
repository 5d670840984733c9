package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/compute"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/image"
)

// spec is what a supervisor reads. It mirrors supervisor.Spec, which control
// must not import; a test compares the two field by field.
type spec struct {
	ID            string   `json:"id"`
	Name          string   `json:"name"`
	Workspace     string   `json:"workspace,omitempty"`
	StateDir      string   `json:"state_dir"`
	Files         files    `json:"files"`
	Main          mainProc `json:"main"`
	Limits        limits   `json:"limits"`
	Policy        []byte   `json:"policy,omitempty"`
	PolicyName    string   `json:"policy_name,omitempty"`
	PolicyVersion uint32   `json:"policy_version,omitempty"`
	Gateway       gateway  `json:"gateway"`
}

type files struct {
	Root        string `json:"root"`
	Upper       string `json:"upper,omitempty"`
	Work        string `json:"work,omitempty"`
	Workspace   string `json:"workspace,omitempty"`
	WorkspaceAt string `json:"workspace_at,omitempty"`
	Trusting    bool   `json:"trusting,omitempty"`
	Home        string `json:"home,omitempty"`
	HomeAt      string `json:"home_at,omitempty"`
}

type mainProc struct {
	Argv []string `json:"argv,omitempty"`
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir,omitempty"`
	TTY  bool     `json:"tty,omitempty"`
	User string   `json:"user,omitempty"`
}

type limits struct {
	MilliCPU int64 `json:"milli_cpu,omitempty"`
	Memory   int64 `json:"memory,omitempty"`
	Pids     int64 `json:"pids,omitempty"`
}

type gateway struct {
	Endpoint        string        `json:"endpoint"`
	CAFile          string        `json:"ca_file,omitempty"`
	TokenFile       string        `json:"token_file"`
	InstanceID      string        `json:"instance_id"`
	OutageLimit     time.Duration `json:"outage_limit,omitempty"`
	AwaitAttachment bool          `json:"await_attachment,omitempty"`
}

// spec describes the run, but for the files.
func (b *box) spec(want compute.Desired) (*spec, error) {
	if len(want.Config) > 0 {
		if !b.d.o.AllowConfig {
			return nil, fault.New(fault.FailedPrecondition, "driver_config is not allowed on this gateway").
				Hint("[openshell.drivers.native] allow_driver_config = true")
		}
		return nil, fault.New(fault.InvalidArgument, "the native driver knows no driver_config key %q", slices.Sorted(maps.Keys(want.Config))[0]).
			On("spec.template.driver_config.native")
	}
	if want.Limits.GPUs > 0 {
		return nil, fault.New(fault.FailedPrecondition, "the native driver has no GPUs")
	}
	s := &spec{ID: string(want.ID), Name: want.Name, Workspace: want.Workspace, StateDir: b.dir,
		Main:   mainProc{Argv: want.Command, TTY: want.TTY},
		Limits: limits{MilliCPU: want.Limits.MilliCPU, Memory: want.Limits.Memory},
		Policy: want.Policy, PolicyName: "policy", PolicyVersion: want.PolicyVersion,
		Gateway: gateway{Endpoint: want.Run.Endpoint, CAFile: want.Run.CAFile, TokenFile: b.path(fileToken), InstanceID: want.Run.InstanceID,
			OutageLimit: want.Run.OutageLimit, AwaitAttachment: want.Run.AwaitAttachment}}
	for _, k := range slices.Sorted(maps.Keys(want.Env)) {
		s.Main.Env = append(s.Main.Env, k+"="+want.Env[k])
	}
	return s, nil
}

// hostFiles: the host's own system, a workspace and a home that are kept.
func (b *box) hostFiles(s *spec) error {
	for _, dir := range []string{dirWork, dirHome} {
		if err := os.MkdirAll(b.path(dir), 0o700); err != nil {
			return storage(err)
		}
	}
	s.Files = files{Root: "host", Workspace: b.path(dirWork), WorkspaceAt: image.ManagedWorkspace, Home: b.path(dirHome),
		Trusting: true} // nobody outside works in these directories
	return nil
}

// source is a resolved image.
type source struct{ src image.Source }

func (s source) host() bool     { return s.src.Kind == image.Host }
func (s source) String() string { return s.src.Typed }

// source resolves what a sandbox is made from.
func (d *Driver) source(name string) (source, error) {
	if name == "" {
		name = d.o.DefaultImage
	}
	if name == image.Host.String() {
		return source{image.Source{Kind: image.Host}}, nil
	}
	catalogue, err := image.LoadCatalogue(d.o.Catalogue)
	if err != nil {
		return source{}, err
	}
	// A client may be another machine: paths of this one mean nothing to it.
	src, err := image.Resolve(name, image.ResolveOptions{Catalogue: catalogue, CommunityRegistry: d.o.Registry})
	return source{src}, err
}

// images opens the cache when it is first needed.
func (d *Driver) images() (*image.Cache, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cache == nil {
		cache, err := image.Open(d.o.CacheDir, image.CacheOptions{})
		if err != nil {
			return nil, err
		}
		d.cache = cache
	}
	return d.cache, nil
}

// imageFiles pulls an image and lays an overlay over it that is kept over
// stop and start.
func (b *box) imageFiles(ctx context.Context, src source, s *spec, want compute.Desired) error {
	cache, err := b.d.images()
	if err != nil {
		return err
	}
	img, err := cache.Pull(ctx, src.src, image.PullOptions{Policy: b.d.pull, Progress: func(p image.Progress) {
		b.note(want, "Normal", "PreparingImage", p.String())
	}})
	if err != nil {
		return err
	}
	defer img.Close()
	for _, n := range img.Notes {
		b.note(want, "Normal", "Image", n)
	}
	if img.ID != "" {
		if err := cache.Hold(img.ID, b.dir); err != nil {
			return err
		}
		b.mu.Lock()
		b.run.Image = img.ID
		b.mu.Unlock()
	}
	for _, dir := range []string{dirUpper, dirScratch} {
		if err := os.MkdirAll(b.path(dir), 0o755); err != nil {
			return storage(err)
		}
	}
	s.Files = files{Root: img.RootfsDir, Upper: b.path(dirUpper), Work: b.path(dirScratch)}
	if s.Main.Dir, err = image.Workspace(img.Config); err != nil {
		return err
	}
	if err := b.makeInside(img.RootfsDir, s.Main.Dir); err != nil {
		return err
	}
	var dropped []string
	s.Main.Env, dropped = image.Environ(img.Config, s.Main.Env)
	for _, name := range dropped {
		b.note(want, "Warning", "Image", "the image's variable "+name+" is left out")
	}
	s.Main.User = img.Config.User
	if user, err := image.ResolveUser(img.RootfsDir, img.Config.User); err == nil {
		s.Files.HomeAt = user.Home
	}
	if len(s.Policy) == 0 { // an image's own policy, which must be readable if it is there
		if s.Policy, err = img.ReadPolicy(); err != nil {
			return fault.New(fault.FailedPrecondition, "the policy %s of the image cannot be read", image.PolicyPath).Cause(err)
		}
		s.PolicyName = image.PolicyPath
	}
	return nil
}

// makeInside makes sure that a directory of the sandbox exists: in the upper
// layer, if the image does not have it.
func (b *box) makeInside(rootfs, dir string) error {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return storage(err)
	}
	defer root.Close()
	name := strings.TrimPrefix(dir, "/")
	if _, err := root.Stat(name); err == nil || name == "" {
		return nil
	}
	upper, err := os.OpenRoot(b.path(dirUpper))
	if err != nil {
		return storage(err)
	}
	defer upper.Close()
	if err := upper.MkdirAll(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return storage(err)
	}
	return nil
}

func (b *box) note(want compute.Desired, kind, reason, text string) {
	b.d.emit(compute.Event{Note: &compute.Note{ID: b.id, InstanceID: want.Run.InstanceID, Time: time.Now(), Type: kind, Reason: reason, Message: text}})
}

// passed are the variables of the gateway that a supervisor needs.
var passed = []string{"HOME", "PATH", "TMPDIR", "LANG", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR",
	"GOTRACEBACK", brand.Env("CGROUP")}

// spawn writes what the supervisor reads and executes it.
func (b *box) spawn(_ context.Context, s *spec, want compute.Desired) error {
	body, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := errors.Join(replaceFile(b.path(fileSpec), body), replaceFile(b.path(fileToken), []byte(want.Run.Token.Reveal()))); err != nil {
		return storage(err)
	}
	log, err := os.OpenFile(b.path(fileLog), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return storage(err)
	}
	defer log.Close()
	var env []string
	for _, name := range passed {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	boot, err := bootID()
	if err != nil {
		return fmt.Errorf("read the boot id: %w", err)
	}
	p, err := startProc(b.d.o.Supervisor, []string{"--spec", filepath.Join(b.dir, fileSpec)}, env, log)
	if err != nil {
		return fault.New(fault.FailedPrecondition, "the supervisor could not be started").Hint("check that %s is installed and executable", b.d.o.Supervisor).Cause(err)
	}
	_, started, err := stat(p.pid)
	if err != nil {
		_ = p.signal(9)
		_ = p.cmd.Wait()
		return fmt.Errorf("look at the supervisor: %w", err)
	}
	b.mu.Lock()
	b.proc, b.prep = p, nil
	held := b.run.Image
	b.mu.Unlock()
	b.set(func(r *run) {
		*r = run{InstanceID: want.Run.InstanceID, State: compute.Running, PID: p.pid, StartTime: started, Boot: boot, Image: held}
	})
	b.follow(p, want.Run.InstanceID)
	return nil
}
