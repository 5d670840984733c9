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
	if err := makeInterface(fd, &rep); err != nil {
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
var indexes = []uint32{2, 200}

func makeInterface(fd int, rep *Report) error {
	var tried []error
	for _, kind := range kinds {
		for _, index := range indexes {
			err := send(fd, kind, index, rep.IPv6)
			if err == nil {
				rep.Kind = kind.name
				return nil
			}
			tried = append(tried, fmt.Errorf("%s: %w", kind.name, err))
			if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EEXIST) {
				break
			}
		}
		if err := tried[len(tried)-1]; !errors.Is(err, unix.EOPNOTSUPP) {
			break // a kind that exists and fails is not made good by another
		}
	}
	return fmt.Errorf("making interface %s: %w", Interface, errors.Join(tried...))
}

// send sends the whole batch in one message and names the step that failed.
func send(fd int, k kind, index uint32, ipv6 bool) error {
	batch, steps := pack(k, index, ipv6)
	err := netlink.Exchange(fd, batch, 1, uint32(len(steps)), nil)
	var refusal *netlink.Refusal
	if errors.As(err, &refusal) && refusal.Seq >= 1 && int(refusal.Seq) <= len(steps) {
		return fmt.Errorf("%s: %w", steps[refusal.Seq-1], refusal.Errno)
	}
	return err
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
