package image

import (
	"fmt"
	"io"

	"openshell.dev/openshell/internal/fault"
)

// Limits bound the work that an image can cause. A zero field means the
// default beside it.
type Limits struct {
	Bytes    int64 // unpacked size of the whole image; 32 GiB
	Download int64 // compressed size of the whole image; 16 GiB
	Entries  int   // archive entries of all layers; 1,000,000
	Layers   int   // 256
	PathLen  int   // bytes of a path inside the image; 3,800
	Depth    int   // directories in a path; 200
	Ratio    int64 // unpacked to packed, beyond Free bytes of a layer; 200
	Free     int64 // unpacked bytes of a layer that no ratio applies to; 256 MiB
}

const (
	manifestMax  = 4 << 20
	configMax    = 8 << 20
	componentMax = 255 // NAME_MAX
)

func (l Limits) withDefaults() Limits {
	or := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	orInt := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	or(&l.Bytes, 32<<30)
	or(&l.Download, 16<<30)
	or(&l.Ratio, 200)
	or(&l.Free, 256<<20)
	orInt(&l.Entries, 1_000_000)
	orInt(&l.Layers, 256)
	orInt(&l.PathLen, 3800)
	orInt(&l.Depth, 200)
	return l
}

// overLimit is the fault for an image that would cost too much.
func overLimit(format string, args ...any) error {
	return fault.New(fault.Exhausted, "the image was refused: %s", fmt.Sprintf(format, args...)).
		Hint("if you trust the image, raise the limit under [image] in the configuration").
		Because("IMAGE_TOO_LARGE")
}

// malformed is the fault for bytes that no honest builder writes.
func malformed(format string, args ...any) error {
	return fault.New(fault.InvalidArgument, "the image is malformed: %s", fmt.Sprintf(format, args...)).
		Because("IMAGE_MALFORMED")
}

// meter counts what one layer costs against the image's budget.
type meter struct {
	limits  Limits
	packed  int64 // compressed bytes of this layer read so far
	stream  int64 // unpacked archive bytes of this layer
	written int64 // file bytes of this layer written (a sparse entry writes more than it carries)
	total   int64 // file bytes of all layers
	entries int   // of all layers
}

// nextLayer starts the per-layer counters anew.
func (m *meter) nextLayer() { m.packed, m.stream, m.written = 0, 0, 0 }

func (m *meter) check() error {
	if m.total > m.limits.Bytes || m.stream > m.limits.Bytes {
		return overLimit("it unpacks to more than %s", byteSize(m.limits.Bytes))
	}
	if big := max(m.stream, m.written); big > m.limits.Free && big/m.limits.Ratio > m.packed {
		return overLimit("a layer unpacks to more than %d times its size", m.limits.Ratio)
	}
	return nil
}

func (m *meter) entry() error {
	if m.entries++; m.entries > m.limits.Entries {
		return overLimit("it has more than %d files", m.limits.Entries)
	}
	return nil
}

// countPacked counts the compressed side of a layer.
type countPacked struct {
	r io.Reader
	m *meter
}

func (c countPacked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.m.packed += int64(n)
	return n, err
}

// countStream counts the unpacked side and stops a bomb.
type countStream struct {
	r io.Reader
	m *meter
}

func (c countStream) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.m.stream += int64(n)
	if over := c.m.check(); over != nil {
		return 0, over
	}
	return n, err
}

// byteSize prints a size as the 0.1.x progress lines do: 1024-based, one
// decimal from GB on.
func byteSize(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%d MB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KB", n>>10)
	default:
		return fmt.Sprintf("%d B", n)
	}
}
