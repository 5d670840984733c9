package supervisor

import (
	"os"
	"path/filepath"
	"slices"

	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/launch/wire"
	"openshell.dev/openshell/internal/view"
)

// HostRoot as Files.Root means the host's own system directories.
const HostRoot = "host"

// plan computes what the launcher will make: the view, and what Landlock
// grants over it.
func (s *Sandbox) plan() (*wire.Plan, error) {
	f := s.spec.Files
	uid, gid := InsideID(os.Getuid()), InsideID(os.Getgid())
	vs := view.Spec{
		ID: s.spec.ID, State: s.spec.Journals, Workdir: f.Workspace, WorkdirAt: f.WorkspaceAt, Trusting: f.Trusting,
		Hidden: f.Hidden, ReadOnly: slices.Concat(f.ReadOnly, s.rules.showReadOnly), ReadWrite: slices.Concat(f.ReadWrite, s.rules.showReadWrite),
		Who:  view.Identity{UID: uid, GID: gid, User: userName(os.Getuid()), Shell: s.shell()},
		Home: f.HomeAt, HomeDir: f.Home, Hostname: s.hostname(),
	}
	if f.Root != "" && f.Root != HostRoot {
		if f.Upper != "" {
			vs.Base = view.Base{Lower: []string{f.Root}, Upper: f.Upper, Work: f.Work}
		} else {
			vs.Base = view.Base{Dir: f.Root}
		}
	}
	v, err := view.Build(vs)
	if err != nil {
		return nil, err
	}
	s.view = v
	s.onClose(func() {
		if err := v.Close(); err != nil {
			s.log.Warn("placeholders were left for the next sweep", "err", err)
		}
	})
	ops, err := v.Plan.Append(nil)
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, "the view of the sandbox is too large").Cause(err)
	}
	added := s.spec.Main.Env
	if s.opts.Path != "" {
		added = slices.Concat([]string{"PATH=" + s.opts.Path}, added)
	}
	s.env = environ(v.Home, s.shell(), userName(os.Getuid()), s.spec.Main.TTY, slices.Concat(v.Env, added))
	m := &wire.Plan{Hostname: s.hostname(), Mounts: ops, Dir: v.Dir}
	s.grants(m)
	return m, nil
}

func (s *Sandbox) hostname() string {
	if s.spec.Hostname != "" {
		return s.spec.Hostname
	}
	if s.spec.Name != "" {
		return s.spec.Name
	}
	return "sandbox"
}

// resolved are the paths that the view shows for host paths: without links,
// which Landlock does not follow where a sandbox can write.
func resolved(paths []string) []string {
	out := slices.Clone(paths)
	for i, p := range out {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			out[i] = real
		}
	}
	return out
}

// grants fills in the Landlock rules. Without a policy of its own everything
// the view shows may be read, and what is writable in the view may be written;
// a policy's paths replace that, beside the devices every program needs.
func (s *Sandbox) grants(m *wire.Plan) {
	m.Confine.ReadWrite = []string{"/dev", "/proc"}
	m.Confine.MustOpen = []string{s.view.Dir}
	if s.spec.Files.Upper == "" {
		m.Confine.MustFail = []string{"/.probe", "/usr/.probe"}
	}
	if fs := s.rules.filesystem; fs != nil {
		m.Confine.ReadOnly = slices.Concat(fs.ReadOnly, s.spec.Files.ReadOnly)
		m.Confine.ReadWrite = append(m.Confine.ReadWrite, fs.ReadWrite...)
		if fs.IncludeWorkdir {
			m.Confine.ReadWrite = append(m.Confine.ReadWrite, s.view.Dir, s.view.Home)
		}
	} else {
		m.Confine.ReadOnly = []string{"/"}
		m.Confine.ReadWrite = append(m.Confine.ReadWrite, s.view.Dir, s.view.Home, "/tmp", "/var/tmp", "/run")
		if s.spec.Files.Upper != "" {
			m.Confine.ReadWrite = []string{"/"}
		}
	}
	m.Confine.ReadWrite = append(m.Confine.ReadWrite, resolved(s.spec.Files.ReadWrite)...)
	m.Confine.Hard = s.rules.hard
}
