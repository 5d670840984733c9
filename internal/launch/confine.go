package launch

import (
	"syscall"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/confine"
	"openshell.dev/openshell/internal/landlock"
	"openshell.dev/openshell/internal/launch/wire"
)

// ProbeAddress and ProbePort are where the launcher tries to send a datagram
// that the fence must refuse: an address that belongs to nobody (RFC 5737).
var ProbeAddress = [4]byte{192, 0, 2, 1}

// ProbePort is the discard port (RFC 863).
const ProbePort = 9

// confineSpec turns what the plan says into walls and into what is tried
// against them.
func confineSpec(p *wire.Plan) confine.Spec {
	c := &p.Confine
	spec := confine.Spec{Mode: landlock.BestEffort}
	if c.Hard {
		spec.Mode = landlock.HardRequirement
	}
	for _, path := range c.ReadOnly {
		// System paths may be links (/bin on a merged system); no program has
		// run yet, and what is writable is not in this list.
		spec.Landlock.Paths = append(spec.Landlock.Paths, landlock.Rule{Path: path, Access: landlock.ReadExec, Follow: true})
	}
	for _, path := range c.ReadWrite {
		spec.Landlock.Paths = append(spec.Landlock.Paths, landlock.Rule{Path: path, Access: landlock.ReadWrite})
	}
	// Listing "/" opens no file, and without it `ls /` is refused.
	spec.Landlock.Paths = append(spec.Landlock.Paths, landlock.Rule{Path: "/", Access: landlock.List})
	for _, path := range c.MustOpen {
		spec.Probes = append(spec.Probes, confine.Probe{Name: "opening " + path, Act: confine.OpenRead, Path: path})
	}
	for _, path := range c.MustFail {
		spec.Probes = append(spec.Probes, confine.Probe{
			Name: "writing " + path, Act: confine.Create, Path: path,
			Want: []syscall.Errno{unix.EACCES, unix.EROFS, unix.EPERM},
		})
	}
	// A datagram is all that could leave without a handshake.
	spec.Probes = append(spec.Probes, confine.Probe{
		Name: "a datagram to the outside", Act: confine.Send, Want: []syscall.Errno{unix.EPERM},
		Address: &unix.SockaddrInet4{Port: ProbePort, Addr: ProbeAddress},
	})
	return spec
}

// skipped words what best effort left out.
func skipped(r landlock.Report) []string {
	out := append([]string(nil), r.Unenforced...)
	for _, s := range r.Skipped {
		out = append(out, s.Path+": "+s.Reason)
	}
	return out
}
