package image

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"openshell.dev/openshell/internal/fault"
)

const zstdWindowMax = 128 << 20

// decompress returns the plain stream of a layer or an archive. What it is
// packed with is found by its first bytes: media types and file names lie.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, malformed("a gzip stream is damaged (%v)", err)
		}
		return &packed{z, z.Close, "gzip"}, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(zstdWindowMax), zstd.WithDecoderMaxMemory(zstdWindowMax*2))
		if err != nil {
			return nil, malformed("a zstd stream is damaged (%v)", err)
		}
		return &packed{z, func() error { z.Close(); return nil }, "zstd"}, nil
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z'}), bytes.HasPrefix(head, []byte("BZh")):
		return nil, fault.New(fault.Unsupported, "the archive is packed with xz or bzip2").
			Hint("unpack it to a plain .tar, or pack it with gzip or zstd")
	}
	return io.NopCloser(br), nil
}

// packed says in its errors what it was reading.
type packed struct {
	io.Reader
	close func() error
	kind  string
}

func (p *packed) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if err != nil && err != io.EOF {
		if _, ours := faultOf(err); !ours {
			err = malformed("a %s stream is damaged (%v)", p.kind, err)
		}
	}
	return n, err
}

func (p *packed) Close() error { return p.close() }

// hashReader feeds what is read to a digest.
type hashReader struct {
	r io.Reader
	h io.Writer
}

func (h hashReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	if _, werr := h.h.Write(p[:n]); werr != nil {
		return n, fmt.Errorf("hashing: %w", werr)
	}
	return n, err
}
