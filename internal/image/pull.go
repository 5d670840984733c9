package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/fault"
)

// Policy says when a registry is asked. The zero value asks it only for what
// is not here.
type Policy uint8

// The pull policies, as image_pull_policy names them.
const (
	IfMissing Policy = iota
	Always           // ask what the reference means now; unchanged layers are not fetched again
	Never
)

// ParsePolicy reads a configured image_pull_policy, in any case. Empty is
// IfMissing.
func ParsePolicy(s string) (Policy, error) {
	for word, p := range map[string]Policy{"": IfMissing, "ifnotpresent": IfMissing, "missing": IfMissing,
		"always": Always, "newer": Always, "never": Never} {
		if strings.EqualFold(s, word) {
			return p, nil
		}
	}
	return IfMissing, fault.New(fault.InvalidArgument, "unsupported image_pull_policy %q", s).
		Hint("one of Always, IfNotPresent, Never")
}

// PullOptions say how to pull; the zero value is usable.
type PullOptions struct {
	Policy    Policy
	Platform  string           // "linux/amd64"; empty: this machine
	Keychain  authn.Keychain   // nil: the docker and podman files
	PlainHTTP []string         // host:port of registries without TLS; loopback ones need no mention
	Progress  func(Progress)   // may be nil; called from one goroutine at a time
	Attempts  int              // per layer; 3
	Backoff   time.Duration    // before the second attempt; 1 s
	Now       func() time.Time // nil: time.Now
}

func (o PullOptions) backoff() remote.Backoff {
	return remote.Backoff{Duration: o.Backoff, Factor: 3, Jitter: 0.1, Steps: o.Attempts}
}

func (o PullOptions) withDefaults() (PullOptions, v1.Platform, error) {
	if o.Attempts <= 0 {
		o.Attempts = 3
	}
	if o.Backoff <= 0 {
		o.Backoff = time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Platform == "" {
		o.Platform = "linux/" + runtime.GOARCH
	}
	p, err := v1.ParsePlatform(o.Platform)
	if err != nil || p.OS != "linux" || p.Architecture == "" {
		return o, v1.Platform{}, fault.New(fault.InvalidArgument, "%q is not a platform like linux/amd64", o.Platform)
	}
	return o, *p, nil
}

// Pull puts a resolved source on disk and returns it with a lease: upkeep
// leaves the image alone until Close. The host and a directory need no work.
// Two pulls of one image share the work, also across processes. On any error
// nothing is left behind. Errors are faults.
func (c *Cache) Pull(ctx context.Context, src Source, opts PullOptions) (*Image, error) {
	o, want, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	var img *Image
	switch src.Kind {
	case Host:
		img = &Image{}
	case Directory:
		img, err = directory(src)
	case Registry, Layout, Archive:
		img, err = c.pull(ctx, src, o, want)
	default:
		err = fault.New(fault.InvalidArgument, "no source was named")
	}
	if err != nil {
		return nil, c.publicFault(ctx, src, err)
	}
	if src.Note != "" {
		img.Notes = append(img.Notes, src.Note)
	}
	img.Notes = append(img.Notes, img.Dropped.notes()...)
	return img, nil
}

func (c *Cache) pull(ctx context.Context, src Source, o PullOptions, want v1.Platform) (*Image, error) {
	p := &puller{cache: c, src: src, opts: o, want: want, tell: newTeller(o.Progress)}
	if src.Kind == Registry && o.Policy != Always {
		img, err := p.remembered()
		if err != nil || img != nil {
			return img, err
		}
		if o.Policy == Never {
			return nil, fault.New(fault.NotFound, "the image %q is not here and image_pull_policy is Never", src.Reference)
		}
	}
	return p.run(ctx)
}

// puller is one pull.
type puller struct {
	cache *Cache
	src   Source
	opts  PullOptions
	want  v1.Platform
	tell  *teller
	work  *workplace // made when first needed
}

func (p *puller) remembered() (*Image, error) {
	r, ok := p.cache.lookup(p.src.Reference, p.opts.Platform)
	if !ok {
		return nil, nil
	}
	img, err := p.cache.load(r.ID)
	if img != nil {
		img.Reference = p.src.Reference
	}
	return img, err
}

func (p *puller) run(ctx context.Context) (_ *Image, err error) {
	defer func() {
		if p.work == nil {
			return
		}
		if derr := p.work.discard(); err == nil && derr != nil {
			p.cache.log.Warn("leftovers of a pull could not be removed", "err", derr)
		}
	}()
	p.tell.step(Progress{Step: StepResolve, Detail: p.src.Typed})
	pl, closer, err := p.plan(ctx)
	if err != nil {
		return nil, err
	}
	defer closer()
	id := pl.id.String()
	if img, err := p.finished(id, pl); err != nil || img != nil {
		return img, err
	}
	held, err := waitLock(ctx, p.cache.path("locks", fileID(id)+".pull"), false, func() {
		p.tell.step(Progress{Step: StepWait, Detail: "another pull of the same image"})
	})
	if err != nil {
		return nil, err
	}
	defer held.unlock()
	if img, err := p.finished(id, pl); err != nil || img != nil {
		return img, err
	}
	if err := p.build(ctx, pl); err != nil {
		return nil, err
	}
	img, err := p.finished(id, pl)
	if err == nil && img == nil {
		err = fault.New(fault.Unavailable, "the image was removed right after the pull").Hint("try again")
	}
	p.tell.step(Progress{Step: StepDone})
	return img, err
}

// finished returns the image if it is published, and notes the reference.
func (p *puller) finished(id string, pl *plan) (*Image, error) {
	img, err := p.cache.load(id)
	if err != nil || img == nil {
		return nil, err
	}
	img.Reference = p.src.Reference
	if p.src.Kind == Registry {
		err := p.cache.remember(refRecord{Reference: p.src.Reference, Platform: p.opts.Platform,
			ID: id, Manifest: pl.manifest, Pulled: p.opts.Now().UTC()})
		if err != nil {
			img.Close()
			return nil, err
		}
	}
	return img, nil
}

// plan finds out what to fetch.
func (p *puller) plan(ctx context.Context) (*plan, func(), error) {
	nothing := func() {}
	limits := p.cache.limits
	dir, tag := p.src.Path, p.src.Tag
	switch p.src.Kind {
	case Registry:
		o, err := newRegistryOrigin(p.src.ref, p.opts)
		if err != nil {
			return nil, nothing, err
		}
		pl, err := readPlan(ctx, o, p.want, limits)
		return pl, o.close, err
	case Archive:
		kind, err := sniff(ctx, p.src.Path, limits)
		if err != nil {
			return nil, nothing, err
		}
		if kind == formRootfs {
			pl, err := rootfsPlan(ctx, p.src.Path, limits)
			return pl, nothing, err
		}
		w, err := p.workplace()
		if err != nil {
			return nil, nothing, err
		}
		dir, tag = filepath.Join(w.dir, "archive"), ""
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, nothing, err
		}
		p.tell.step(Progress{Step: StepRead, Detail: filepath.Base(p.src.Path)})
		if err := stage(ctx, p.src.Path, dir, limits); err != nil {
			return nil, nothing, err
		}
		if kind == formDocker {
			pl, err := dockerPlan(dir, tag, p.want, limits)
			return pl, nothing, err
		}
	}
	o, err := newLayoutOrigin(dir, tag, p.src.Typed, p.want)
	if err != nil {
		return nil, nothing, err
	}
	pl, err := readPlan(ctx, o, p.want, limits)
	return pl, o.close, err
}

func (p *puller) workplace() (*workplace, error) {
	if p.work == nil {
		w, err := p.cache.newWorkplace()
		if err != nil {
			return nil, err
		}
		p.work = w
	}
	return p.work, nil
}

// build fetches, unpacks and publishes an image. Layers are fetched three at
// a time and unpacked in order as they arrive.
func (p *puller) build(ctx context.Context, pl *plan) error {
	w, err := p.workplace()
	if err != nil {
		return err
	}
	if err := p.room(pl); err != nil {
		return err
	}
	out := filepath.Join(w.dir, "image")
	rootfs := filepath.Join(out, "rootfs")
	if err := os.MkdirAll(rootfs, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	u := newUnpacker(root, p.cache.limits)
	defer u.disk.close()

	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(3 + 1) // and the unpacker
	ready := make([]chan string, len(pl.layers))
	for i := range ready {
		ready[i] = make(chan string, 1)
	}
	group.Go(func() error { return p.unpackAll(gctx, u, pl, ready) })
	for i := range pl.layers {
		group.Go(func() error {
			file, err := p.fetch(gctx, w, pl, i)
			if err == nil {
				ready[i] <- file
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := u.finish(); err != nil {
		return err
	}
	return p.publish(out, u, pl)
}

// room refuses a pull that cannot fit, before it starts.
func (p *puller) room(pl *plan) error {
	var need int64
	for _, l := range pl.layers {
		need += l.desc.Size
	}
	var st unix.Statfs_t
	if err := unix.Statfs(p.cache.dir, &st); err != nil {
		return nil // not every file system says
	}
	if free := int64(st.Bavail) * st.Bsize; st.Blocks > 0 && need > free {
		return fmt.Errorf("the layers need %s, free are %s: %w", byteSize(need), byteSize(free), unix.ENOSPC)
	}
	return nil
}

func (p *puller) unpackAll(ctx context.Context, u *unpacker, pl *plan, ready []chan string) error {
	for i, l := range pl.layers {
		var file string
		select {
		case <-ctx.Done():
			return ctx.Err()
		case file = <-ready[i]:
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		p.tell.step(Progress{Step: StepUnpack, Layer: i + 1, Layers: len(pl.layers), Total: l.desc.Size})
		if err := unpackFile(ctx, u, l, file); err != nil {
			return fmt.Errorf("layer %d of %d: %w", i+1, len(pl.layers), err)
		}
	}
	return nil
}

// unpackFile applies one layer and compares its diff id. file is the fetched
// blob, which is removed, or empty for a layer that is read where it is.
func unpackFile(ctx context.Context, u *unpacker, l layer, file string) error {
	var in io.ReadCloser
	var err error
	if file != "" {
		in, err = os.Open(file)
		defer os.Remove(file)
	} else {
		in, err = l.open(ctx)
	}
	if err != nil {
		return err
	}
	defer in.Close()
	u.meter.nextLayer()
	z, err := decompress(countPacked{in, u.meter})
	if err != nil {
		return err
	}
	defer z.Close()
	if l.diffID.Hex == "" { // a plain archive has no promise to keep
		return u.layer(ctx, countStream{z, u.meter})
	}
	h, err := v1.Hasher(l.diffID.Algorithm)
	if err != nil {
		return malformed("the diff id %.80q is of an unknown kind", l.diffID.String())
	}
	if err := u.layer(ctx, hashReader{countStream{z, u.meter}, h}); err != nil {
		return err
	}
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != l.diffID.Hex {
		return digestFault("the content of a layer", l.diffID, got)
	}
	return nil
}

// publish makes the finished tree visible in one step.
func (p *puller) publish(out string, u *unpacker, pl *plan) error {
	id := pl.id.String()
	survey, err := surveyOf(filepath.Join(out, "rootfs"))
	if err != nil {
		return err
	}
	img := &Image{ID: id, Manifest: pl.manifest, Reference: p.src.Reference, Config: pl.config, Survey: survey,
		Bytes: u.meter.total, Entries: u.meter.entries, Dropped: u.dropped, Created: p.opts.Now().UTC()}
	data, err := img.marshal()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "image.json"), data, 0o600); err != nil {
		return err
	}
	final := p.cache.path("images", fileID(id))
	if err := os.Rename(out, final); err != nil {
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
			return nil // somebody without our lock was faster; theirs is as good
		}
		return err
	}
	p.cache.log.Info("image unpacked", "image", id, "entries", img.Entries, "bytes", img.Bytes)
	return nil
}
