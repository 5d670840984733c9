package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"openshell.dev/openshell/internal/fault"
)

// fetch brings one layer to a file in the workplace and verifies it before
// anything parses it. It returns an empty name for layers that are read where
// they are: those of archives, and of layouts, whose digest is then verified
// in a pass of its own.
func (p *puller) fetch(ctx context.Context, w *workplace, pl *plan, i int) (string, error) {
	l := pl.layers[i]
	if p.src.Kind != Registry {
		if l.desc.Digest.Hex == "" || l.diffID.Hex == "" {
			return "", nil
		}
		return "", p.verify(ctx, l)
	}
	file := filepath.Join(w.dir, fmt.Sprintf("layer-%d", i))
	var err error
	for attempt := range p.opts.Attempts {
		if attempt > 0 {
			if err := pause(ctx, p.opts.Backoff, attempt); err != nil {
				return "", err
			}
		}
		if err = p.download(ctx, l, file, i, len(pl.layers)); err == nil {
			return file, nil
		}
		if ctx.Err() != nil || !worthRetrying(err) {
			break
		}
		p.cache.log.Debug("layer download interrupted", "attempt", attempt+1, "err", err)
	}
	_, local := errors.AsType[finalError](err)
	if _, said := faultOf(err); said || local || ctx.Err() != nil {
		return "", fmt.Errorf("fetching layer %d of %d: %w", i+1, len(pl.layers), err)
	}
	return "", fault.New(fault.Unavailable, "layer %d of %d could not be fetched: %v", i+1, len(pl.layers), err).
		Hint("try again").Cause(err)
}

func (p *puller) download(ctx context.Context, l layer, file string, i, n int) error {
	rc, err := l.open(ctx)
	if err != nil {
		return finalError{err} // the library has tried again already
	}
	defer rc.Close()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return finalError{err}
	}
	defer f.Close()
	at := Progress{Step: StepDownload, Layer: i + 1, Layers: n, Total: l.desc.Size, Detail: short(l.desc.Digest)}
	body := readerFunc(func(b []byte) (int, error) {
		m, err := rc.Read(b)
		at.Done += int64(m)
		p.tell.bytes(at)
		return m, err
	})
	if err := copyVerified(localWriter{f}, body, l.desc); err != nil {
		return err
	}
	p.tell.step(at)
	if err := f.Close(); err != nil {
		return finalError{err}
	}
	return nil
}

func (p *puller) verify(ctx context.Context, l layer) error {
	rc, err := l.open(ctx)
	if err != nil {
		return err
	}
	defer rc.Close()
	return copyVerified(io.Discard, ctxReader{ctx, rc}, l.desc)
}

// copyVerified copies exactly the bytes that a descriptor promises.
func copyVerified(dst io.Writer, src io.Reader, d v1.Descriptor) error {
	h, err := v1.Hasher(d.Digest.Algorithm)
	if err != nil {
		return malformed("the digest %.80q is of an unknown kind", d.Digest.String())
	}
	n, err := io.Copy(io.MultiWriter(dst, h), io.LimitReader(src, d.Size+1))
	if err != nil {
		return err
	}
	if n != d.Size {
		return errShort{got: n, want: d.Size}
	}
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != d.Digest.Hex {
		return digestFault("a layer", d.Digest, got)
	}
	return nil
}

// errShort is a layer of another length than promised: a cut connection, or
// a damaged registry.
type errShort struct{ got, want int64 }

func (e errShort) Error() string {
	if e.got > e.want {
		return fmt.Sprintf("a layer is longer than the %d bytes it should have", e.want)
	}
	return fmt.Sprintf("a layer ended after %d of %d bytes", e.got, e.want)
}

// finalError marks trouble that no retry of ours cures, such as that of our
// own disk.
type finalError struct{ err error }

func (e finalError) Error() string { return e.err.Error() }
func (e finalError) Unwrap() error { return e.err }

type localWriter struct{ w io.Writer }

func (l localWriter) Write(p []byte) (int, error) {
	n, err := l.w.Write(p)
	if err != nil {
		err = finalError{err}
	}
	return n, err
}

func worthRetrying(err error) bool {
	if _, final := errors.AsType[finalError](err); final {
		return false
	}
	if f, ok := faultOf(err); ok {
		return f.Kind == fault.Unavailable || f.Reason == "DIGEST_MISMATCH"
	}
	return true
}

// pause waits before attempt n (from 1), with jitter.
func pause(ctx context.Context, base time.Duration, n int) error {
	d := base << (2 * (n - 1))
	d += time.Duration(rand.Int64N(int64(d)/5 + 1))
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func short(h v1.Hash) string { return h.Hex[:min(12, len(h.Hex))] }
