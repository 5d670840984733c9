package netns

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/netlink"
)

// Setup brings up lo and the interface with its addresses and routes. It must
// run in a fresh network namespace.
func Setup() (Report, error) {
	fd, err := netlink.Open(unix.NETLINK_ROUTE)
	if err != nil {
		return Report{}, err
	}
	defer unix.Close(fd)
	rep := Report{IPv6: hasIPv6()}
	if err := makeInterface(fd, kinds, &rep); err != nil {
		return Report{}, err
	}
	if err := verify(fd, &rep); err != nil {
		return Report{}, err
	}
	lowPorts(&rep)
	return rep, nil
}

// indexes to try for the interface: the natural one, and one above what the
// kernel may have taken for tunnels of its own in every new namespace.
var indexes = [2]uint32{2, 200}

// Devices are the indexes that a socket inside may be bound to, 0 for none.
func Devices() []uint32 { return []uint32{0, loIndex, indexes[0], indexes[1]} }

// makeInterface tries the kinds in order. A kind that the kernel has and that
// fails is an error: another kind would not make it good.
func makeInterface(fd int, kinds []kind, rep *Report) error {
	var tried []error
	for _, kind := range kinds {
		if kind.present && !present(kind.name) {
			continue
		}
		err := makeKind(fd, kind, rep)
		if err == nil {
			rep.Kind = kind.name
			return nil
		}
		tried = append(tried, fmt.Errorf("%s: %w", kind.name, err))
		if !errors.Is(err, errNoKind) {
			break
		}
	}
	return fmt.Errorf("making interface %s: %w", Interface, errors.Join(tried...))
}

// present tells whether trying a kind loads no driver: it is loaded, or the
// kernel has no modules at all.
func present(name string) bool {
	return unix.Access("/sys/module/"+name, unix.F_OK) == nil || unix.Access("/proc/modules", unix.F_OK) == unix.ENOENT
}

// errNoKind means that the kernel cannot make this kind of interface.
var errNoKind = errors.New("not in this kernel")

func makeKind(fd int, kind kind, rep *Report) error {
	index := indexes[0]
	failed, err := send(fd, kind, index, rep.IPv6)
	if failed == stepMake && (errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST)) {
		index = indexes[1]
		failed, err = send(fd, kind, index, rep.IPv6)
	}
	switch {
	case err == nil:
		return nil
	case failed == stepMake && errors.Is(err, unix.EOPNOTSUPP):
		return errNoKind
	case failed != stepIPv6:
		return fmt.Errorf("%s: %w", failed, err)
	}
	// IPv6 is switched off on this machine. Without its addresses and routes
	// nothing can be sent by it, so the floor stands without it.
	if err := remove(fd, index); err != nil {
		return fmt.Errorf("removing it again: %w", err)
	}
	rep.IPv6 = false
	rep.Notes = append(rep.Notes, "no IPv6 inside: "+err.Error())
	if failed, err = send(fd, kind, index, false); err != nil {
		return fmt.Errorf("%s: %w", failed, err)
	}
	return nil
}

// send sends the whole batch in one message and names the step that failed.
func send(fd int, k kind, index uint32, ipv6 bool) (failed string, err error) {
	batch, steps := pack(k, index, ipv6)
	err = netlink.Exchange(fd, batch, 1, uint32(len(steps)), nil)
	var refusal *netlink.Refusal
	if errors.As(err, &refusal) {
		return steps[refusal.Seq-1], refusal.Errno
	}
	return "exchange", err
}

func remove(fd int, index uint32) error {
	var b netlink.Batch
	b.Message(unix.RTM_DELLINK, unix.NLM_F_ACK, 1)
	b.Raw(ifinfo(index, 0, 0)...)
	return netlink.Exchange(fd, b.Bytes(), 1, 1, nil)
}

// settleTime bounds the wait for a veth pair to report its carrier.
const settleTime = time.Second

// verify reads the interfaces back: lo and ours must be up and running, and
// nothing else may be up. Anything else means that the namespace is not ours.
func verify(fd int, rep *Report) error {
	for deadline := time.Now().Add(settleTime); ; time.Sleep(time.Millisecond) {
		links, err := list(fd)
		if err != nil {
			return fmt.Errorf("listing interfaces: %w", err)
		}
		ready, err := judge(links, rep)
		if err != nil || ready {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("interfaces are not running: %v", links)
		}
	}
}

const upAndRunning = unix.IFF_UP | unix.IFF_RUNNING

func judge(links []link, rep *Report) (ready bool, err error) {
	rep.Others = nil
	var lo, eth bool
	for _, l := range links {
		switch {
		case l.name == "lo":
			lo = l.flags&upAndRunning == upAndRunning
		case l.name == Interface:
			const want = upAndRunning | unix.IFF_MULTICAST
			eth = l.flags&want == want
		case l.name == peerName && rep.Kind == "veth":
		case l.flags&unix.IFF_UP != 0:
			return false, fmt.Errorf("the network namespace is not a fresh one: interface %q is up", l.name)
		default:
			rep.Others = append(rep.Others, l.name)
		}
	}
	slices.Sort(rep.Others)
	return lo && eth, nil
}

func hasIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// lowPorts lets programs inside serve on ports below 1024, as a machine of
// their own would. Only the namespace is affected.
func lowPorts(rep *Report) {
	const path = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString("0\n")
		f.Close()
	}
	if err != nil {
		rep.Notes = append(rep.Notes, "programs cannot serve on ports below 1024: "+err.Error())
	}
}
