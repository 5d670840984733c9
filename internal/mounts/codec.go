package mounts

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// The wire form of a plan. Integers are minimal unsigned varints; strings and
// bytes are a length and the bytes. There is one encoding of each plan.
//
//	byte    version (1)
//	uvarint number of operations
//	each    byte kind, uvarint flags, uvarint mode, uvarint size,
//	        string source, string target, bytes data, string why
const (
	codecVersion = 1

	// MaxOps bounds the operations of a plan.
	MaxOps = 1024
	// MaxPath bounds each path of a plan, as PATH_MAX does.
	MaxPath = 4095
	// MaxData bounds the content of one file.
	MaxData = 64 << 10
	// MaxPlan bounds an encoded plan.
	MaxPlan  = 1 << 20
	maxWhy   = 512
	maxModes = 0o7777
)

var errShort = errors.New("plan ends too early")

// Append appends the encoded plan to b. It fails if the plan is not valid, so
// that what is sent can always be decoded.
func (p Plan) Append(b []byte) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	start := len(b)
	b = append(b, codecVersion)
	b = binary.AppendUvarint(b, uint64(len(p)))
	for i := range p {
		o := &p[i]
		b = append(b, byte(o.Kind))
		b = binary.AppendUvarint(b, uint64(o.Flags))
		b = binary.AppendUvarint(b, uint64(o.Mode))
		b = binary.AppendUvarint(b, o.Size)
		b = appendBytes(b, o.Source)
		b = appendBytes(b, o.Target)
		b = appendBytes(b, string(o.Data))
		b = appendBytes(b, o.Why)
	}
	if len(b)-start > MaxPlan {
		return nil, fmt.Errorf("plan has %d bytes, more than %d", len(b)-start, MaxPlan)
	}
	return b, nil
}

// Decode reads a plan that fills b exactly and checks it.
func Decode(b []byte) (Plan, error) {
	if len(b) > MaxPlan {
		return nil, fmt.Errorf("plan has %d bytes, more than %d", len(b), MaxPlan)
	}
	if len(b) == 0 || b[0] != codecVersion {
		return nil, errors.New("not a plan of this version")
	}
	d := decoder{b: b[1:]}
	n := d.number(MaxOps)
	var p Plan
	for range n {
		var o Op
		o.Kind = Kind(d.octet())
		o.Flags = Flags(d.number(uint64(allFlags)))
		o.Mode = uint32(d.number(maxModes))
		o.Size = d.number(1 << 62)
		o.Source = string(d.bytes(MaxPath))
		o.Target = string(d.bytes(MaxPath))
		if data := d.bytes(MaxData); len(data) > 0 {
			o.Data = append([]byte(nil), data...)
		}
		o.Why = string(d.bytes(maxWhy))
		if d.err != nil {
			return nil, d.err
		}
		p = append(p, o)
	}
	if d.err != nil {
		return nil, d.err
	}
	if len(d.b) != 0 {
		return nil, fmt.Errorf("%d bytes after the plan", len(d.b))
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return p, nil
}

type decoder struct {
	b   []byte
	err error
}

func (d *decoder) octet() byte {
	if d.err != nil || len(d.b) == 0 {
		d.fail(errShort)
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) number(most uint64) uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b)
	switch {
	case n <= 0:
		d.fail(errShort)
	case n > 1 && d.b[n-1] == 0:
		d.fail(errors.New("a number is not in its shortest form"))
	case v > most:
		d.fail(fmt.Errorf("%d is more than %d", v, most))
	default:
		d.b = d.b[n:]
		return v
	}
	return 0
}

func (d *decoder) bytes(most uint64) []byte {
	n := d.number(most)
	if d.err != nil {
		return nil
	}
	if n > uint64(len(d.b)) {
		d.fail(errShort)
		return nil
	}
	s := d.b[:n]
	d.b = d.b[n:]
	return s
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

func appendBytes(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// check refuses a plan that Apply could misunderstand.
func (p Plan) check() error {
	if len(p) == 0 || p[0].Target != "/" || (p[0].Kind != Tmpfs && p[0].Kind != Overlay) {
		return errors.New("a plan must begin with its root")
	}
	if len(p) > MaxOps {
		return fmt.Errorf("plan has %d operations, more than %d", len(p), MaxOps)
	}
	for i := range p {
		if err := p[i].check(i == 0); err != nil {
			return fmt.Errorf("operation %d, %s: %w", i, p[i], err)
		}
	}
	return nil
}

func (o *Op) check(first bool) error {
	switch {
	case o.Kind == 0 || o.Kind >= kinds:
		return errors.New("unknown kind")
	case o.Flags&^allFlags != 0:
		return errors.New("unknown flag")
	case o.Mode > maxModes || o.Size > 1<<62:
		return errors.New("mode or size out of range")
	case len(o.Data) > MaxData || len(o.Source) > MaxPath || len(o.Why) > maxWhy:
		return errors.New("content too long")
	case !cleanPath(o.Target):
		return errors.New("the target is not an absolute clean path")
	case o.Target == "/" && !first && o.Kind != Seal:
		return errors.New("only the first operation makes the root")
	case o.Kind == Overlay && !first:
		return errors.New("an overlay must be the root")
	case o.Kind == Bind && !cleanPath(o.Source):
		return errors.New("the source is not an absolute clean path")
	case o.Kind == Symlink && (o.Source == "" || strings.IndexByte(o.Source, 0) >= 0):
		return errors.New("a link needs a text")
	case o.Kind == Overlay:
		return checkOverlay(o)
	}
	return nil
}

func checkOverlay(o *Op) error {
	work, lowers := overlayDirs(o)
	if (o.Source == "") != (work == "") {
		return errors.New("an overlay needs both or neither of upper and work directory")
	}
	if o.Source != "" && (!cleanPath(o.Source) || !cleanPath(work)) {
		return errors.New("upper and work directory must be absolute clean paths")
	}
	if len(lowers) == 0 || len(lowers) > 200 {
		return fmt.Errorf("an overlay has 1 to 200 lower directories, not %d", len(lowers))
	}
	for _, l := range lowers {
		if !cleanPath(l) {
			return errors.New("lower directories must be absolute clean paths")
		}
	}
	return nil
}

func overlayDirs(o *Op) (work string, lowers []string) {
	parts := strings.Split(string(o.Data), "\x00")
	return parts[0], parts[1:]
}

// cleanPath reports whether p is absolute without empty, "." and ".." parts.
func cleanPath(p string) bool {
	if p == "/" {
		return true
	}
	if len(p) < 2 || p[0] != '/' || len(p) > MaxPath || strings.IndexByte(p, 0) >= 0 {
		return false
	}
	for part := range strings.SplitSeq(p[1:], "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}
