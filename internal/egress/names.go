package egress

import (
	"encoding/binary"
	"net/netip"
	"sync"
)

// Synthetic addresses come from 198.18.0.0/15 (RFC 2544, for benchmarks: no
// real host has one). An address is never given to another name while the
// sandbox lives, because Java and connection pools ignore the TTL.
var synthetic = netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, 0, 0}), 15)

const (
	maxNames    = 1<<17 - 2 // of the /15 without its first and last address
	maxObserved = 8192      // names that no rule mentions
	synthBase   = 198<<24 | 18<<16
)

// names is the two-way table of names and synthetic addresses.
type names struct {
	mu       sync.RWMutex
	byName   map[string]uint32 // offset from synthBase
	byOffset []string          // name of offset+1
	observed int               // given to names no rule mentioned then
}

func newNames() *names { return &names{byName: map[string]uint32{}} }

// address returns the address of name, giving it one if there is room.
// observed says that no rule mentions the name: those may use a part.
func (n *names) address(name string, observed bool) (netip.Addr, bool) {
	n.mu.RLock()
	off, ok := n.byName[name]
	n.mu.RUnlock()
	if ok {
		return offset(off), true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if off, ok := n.byName[name]; ok {
		return offset(off), true
	}
	if len(n.byOffset) >= maxNames || observed && n.observed >= maxObserved {
		return netip.Addr{}, false
	}
	if observed {
		n.observed++
	}
	n.byOffset = append(n.byOffset, name)
	off = uint32(len(n.byOffset)) // never 0
	n.byName[name] = off
	return offset(off), true
}

// name returns the name that addr stands for.
func (n *names) name(addr netip.Addr) (string, bool) {
	if !n.owns(addr) {
		return "", false
	}
	b := addr.Unmap().As4()
	off := binary.BigEndian.Uint32(b[:]) - synthBase
	n.mu.RLock()
	defer n.mu.RUnlock()
	if off == 0 || int(off) > len(n.byOffset) {
		return "", false
	}
	return n.byOffset[off-1], true
}

// owns reports whether addr is in the synthetic range, given out or not.
func (n *names) owns(addr netip.Addr) bool { return synthetic.Contains(addr.Unmap()) }

func (n *names) len() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return len(n.byOffset)
}

func offset(off uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], synthBase+off)
	return netip.AddrFrom4(b)
}
