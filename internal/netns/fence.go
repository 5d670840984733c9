package netns

import (
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/netlink"
)

// fence is the finished nftables batch. fence_build_test.go holds the rules,
// with their reasons, and writes the file (go test -run Fence -update), so that
// nothing of the library that encodes them is linked here. The bytes are
// little-endian, like every machine we build for; another one refuses them.
//
//go:embed fence.bin
var fence []byte

// LoadFence installs the packet rules through the Netfilter socket, all or
// none. From its return on no packet leaves the namespace's own addresses
// except multicast, which has nowhere to go.
func (s *Sockets) LoadFence() error {
	first, last, err := span(fence)
	if err != nil {
		return fmt.Errorf("reading the packet rules: %w", err)
	}
	if err := netlink.Exchange(s[Netfilter], fence, first, last, nil); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("installing the packet rules (are nf_tables and its nat, redirect, reject and log modules in the kernel?): %w", err)
		}
		return fmt.Errorf("installing the packet rules: %w", err)
	}
	return nil
}

// span returns the numbers of the first message and of the one that asks for
// an acknowledgement, which must be the last but the end of the batch.
func span(batch []byte) (first, last uint32, err error) {
	if len(batch) < netlink.HeaderLen || binary.NativeEndian.Uint32(batch) > uint32(len(batch)) {
		return 0, 0, netlink.ErrMalformed
	}
	acks := 0
	for rest := batch; ; {
		m, r, ok, err := netlink.Next(rest)
		if err != nil {
			return 0, 0, err
		}
		if !ok {
			break
		}
		if first == 0 {
			first = m.Seq
		}
		if m.Flags&unix.NLM_F_ACK != 0 {
			last, acks = m.Seq, acks+1
		}
		rest = r
	}
	if acks != 1 || first == 0 {
		return 0, 0, netlink.ErrMalformed
	}
	return first, last, nil
}
