package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/netlink"
	"openshell.dev/openshell/internal/netns"
)

// Fence edits the denied sets: destinations that are refused at connect with
// "connection refused", before any handshake. It is a courtesy that makes a
// denial quick; the decision at accept time is what counts. It is safe for
// concurrent use.
type Fence struct {
	mu  sync.Mutex // one exchange at a time; the kernel answers inside the send
	fd  int
	seq uint32
}

// NewFence wraps the Netfilter descriptor of the floor. The caller keeps and
// closes it. The calling process must have the user id that owns the sandbox's
// user namespace, or edits are refused with EPERM.
func NewFence(fd int) *Fence { return &Fence{fd: fd} }

// MaxDenial bounds how long a destination is refused without being asked for
// again, so that a policy change is never masked for long.
const MaxDenial = time.Minute

// Deny refuses new connections to dst for the given time, from now on.
// Refusing it again begins its time anew. A full set is an error
// (unix.ENFILE) without consequence but a slower denial.
func (f *Fence) Deny(dst netip.AddrPort, d time.Duration) error {
	dst = unmap(dst)
	if !dst.IsValid() || d < time.Millisecond || d > MaxDenial {
		return fmt.Errorf("refusing %v for %v: out of range", dst, d)
	}
	set, key := element(dst)
	err := f.edit(func(b *netlink.Batch, message func(typ, flags uint16)) {
		// A second addition leaves the time of the first, so remove first;
		// the addition before makes the removal succeed.
		for _, typ := range []uint16{unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM, unix.NFT_MSG_NEWSETELEM} {
			flags := uint16(0)
			if typ == unix.NFT_MSG_NEWSETELEM {
				flags = unix.NLM_F_CREATE
			}
			message(typ, flags)
			head(b, set)
			list := b.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS | unix.NLA_F_NESTED)
			elem := b.Nest(1 | unix.NLA_F_NESTED) // NFTA_LIST_ELEM
			k := b.Nest(unix.NFTA_SET_ELEM_KEY | unix.NLA_F_NESTED)
			b.Attr(unix.NFTA_DATA_VALUE, key...)
			b.Close(k)
			if typ == unix.NFT_MSG_NEWSETELEM {
				b.Attr(unix.NFTA_SET_ELEM_TIMEOUT, binary.BigEndian.AppendUint64(nil, uint64(d.Milliseconds()))...)
			}
			b.Close(elem)
			b.Close(list)
		}
	})
	if err != nil {
		return fmt.Errorf("refusing %v: %w", dst, err)
	}
	return nil
}

// Clear empties the denied sets, as after a change of the policy.
func (f *Fence) Clear() error {
	err := f.edit(func(b *netlink.Batch, message func(typ, flags uint16)) {
		for _, set := range []string{netns.SetDenied4, netns.SetDenied6} {
			message(unix.NFT_MSG_DELSETELEM, 0)
			head(b, set)
		}
	})
	if err != nil {
		return fmt.Errorf("clearing the denied destinations: %w", err)
	}
	return nil
}

// element returns the set of an address and the element's key: the address,
// then the port padded to four bytes.
func element(dst netip.AddrPort) (set string, key []byte) {
	set = netns.SetDenied6
	if dst.Addr().Is4() {
		set = netns.SetDenied4
	}
	key = binary.BigEndian.AppendUint16(dst.Addr().AsSlice(), dst.Port())
	return set, append(key, 0, 0)
}

func head(b *netlink.Batch, set string) {
	b.Raw(unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0)
	b.AttrString(unix.NFTA_SET_ELEM_LIST_TABLE, netns.Table)
	b.AttrString(unix.NFTA_SET_ELEM_LIST_SET, set)
}

// edit sends what body writes as one transaction, all or nothing.
func (f *Fence) edit(body func(b *netlink.Batch, message func(typ, flags uint16))) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seq > 1<<31 {
		f.seq = 0
	}
	var b netlink.Batch
	next := func(typ, flags uint16) {
		f.seq++
		b.Message(typ, flags, f.seq)
	}
	frame := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, unix.NFNL_SUBSYS_NFTABLES)
	next(unix.NFNL_MSG_BATCH_BEGIN, 0)
	b.Raw(frame...)
	first := f.seq
	body(&b, func(typ, flags uint16) { next(unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags|unix.NLM_F_ACK) })
	last := f.seq
	next(unix.NFNL_MSG_BATCH_END, 0)
	b.Raw(frame...)
	err := netlink.Exchange(f.fd, b.Bytes(), first, last, nil)
	if errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("no answer from the kernel: %w", err)
	}
	return err
}
