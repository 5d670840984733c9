package supervisor

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"openshell.dev/openshell/internal/decide"
	"openshell.dev/openshell/internal/egress"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/policy"
)

// rules are one policy revision as this sandbox enforces it.
type rules struct {
	doc      *policy.Document
	compiled egress.Policy
	// filesystem is nil when no policy was given: then the view decides alone.
	filesystem *policy.Filesystem
	hard       bool // a path that cannot be confined stops the start
	// showReadOnly and showReadWrite are host paths that only the policy names.
	showReadOnly, showReadWrite []string
}

// readRules parses, checks and compiles what the Spec gives.
func (s *Sandbox) readRules() error {
	r, err := compileRules(s.spec.PolicyName, s.spec.Policy, s.spec.Allow, s.word)
	if err != nil {
		return err
	}
	if err := checkIdentity(r.doc, InsideID(os.Getuid()), InsideID(os.Getgid())); err != nil {
		return err
	}
	if s.spec.Gateway == nil && r.filesystem != nil && (s.spec.Files.Root == "" || s.spec.Files.Root == HostRoot) {
		r.showReadOnly, r.showReadWrite = shownByPolicy(r.filesystem)
	}
	s.rules = r
	return nil
}

// compileRules makes rules of a document and of --allow values. A setting
// that this version would not enforce is refused by name.
func compileRules(name string, data []byte, allow []string, word func(decide.Change) string) (*rules, error) {
	r := &rules{doc: policy.RunDefault()}
	if len(data) > 0 {
		doc, err := policy.Parse(name, data)
		if err != nil {
			return nil, err
		}
		if err := policy.NewError(doc, policy.Unenforced(doc)); err != nil {
			return nil, err
		}
		fs := doc.EffectiveFilesystem()
		r.doc, r.filesystem, r.hard = doc, &fs, doc.EffectiveLandlock() == policy.HardRequirement
	}
	if len(allow) > 0 {
		more, err := policy.FromAllow(allow)
		if err != nil {
			return nil, err
		}
		for _, rule := range more.Rules {
			if r.doc.Rule(rule.Key) == nil {
				r.doc.Rules = append(r.doc.Rules, rule)
			}
		}
		slices.SortFunc(r.doc.Rules, func(a, b policy.Rule) int { return strings.Compare(a.Key, b.Key) })
	}
	index, err := decide.Compile(r.doc)
	if err != nil {
		return nil, err
	}
	r.compiled = egress.Compiled(index, word)
	return r, nil
}

// word picks the wording of the narrowest change: the flag of run, or the
// command that changes the policy of a sandbox of the gateway.
func (s *Sandbox) word(c decide.Change) string {
	if s.spec.Gateway == nil {
		return c.Run
	}
	return strings.ReplaceAll(c.Update, " NAME ", " "+s.spec.Name+" ")
}

// checkIdentity refuses an identity that the native driver cannot give: one id
// is all that an ordinary account may map.
func checkIdentity(d *policy.Document, uid, gid int) error {
	if d.Process == nil {
		return nil
	}
	for _, id := range []struct {
		field, want string
		have        int
	}{{"run_as_user", d.Process.RunAsUser, uid}, {"run_as_group", d.Process.RunAsGroup, gid}} {
		if id.want == "" || id.want == "sandbox" || id.want == strconv.Itoa(id.have) {
			continue
		}
		return fault.New(fault.Unsupported, "%s: process.%s: %q cannot be had here: without privileges a sandbox has one id, %d",
			d.At("process."+id.field).In(d.Source), id.field, id.want, id.have).
			Hint("%s: sandbox", id.field).On("process." + id.field)
	}
	return nil
}

// standard are the paths that every view has its own answer for; a policy
// that lists them does not ask for the host's.
var standard = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix", "/gnu",
	"/tmp", "/dev", "/proc", "/sys", "/run", "/var", "/app", "/sandbox", "/home", "/root"}

// shownByPolicy returns the host paths that are visible because the policy
// names them: those that exist and that the view has no answer of its own for.
// /home and /root themselves are never shown whole; what is below them is.
func shownByPolicy(fs *policy.Filesystem) (ro, rw []string) {
	pick := func(paths []string) (out []string) {
		for _, p := range paths {
			own := slices.ContainsFunc(standard, func(dir string) bool {
				return p == dir || strings.HasPrefix(p, dir+"/") && dir != "/home" && dir != "/root"
			})
			if own || p == "/" {
				continue
			}
			if _, err := os.Stat(p); err == nil {
				out = append(out, p)
			}
		}
		return out
	}
	return pick(fs.ReadOnly), pick(fs.ReadWrite)
}
