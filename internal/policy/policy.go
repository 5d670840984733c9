// Package policy owns the policy document: what a person writes to say which
// files, which identity and which network an agent may have.
//
// It parses YAML or JSON strictly (every problem at once, each with its line,
// column and path), validates, serialises canonically, hashes, and matches
// host patterns and globs. A Document that Parse or Validate accepted is valid
// by the 0.1.x contract; whether the present enforcer can enforce all of it is
// a separate question that Unenforced answers, so that nothing is silently
// ignored. It is pure: no file, no network, no clock, and no decision either
// (that is package decide). Everybody may import it.
package policy

// Version is the only document version there is.
const Version = 1

// Document is one whole policy. The zero value grants nothing.
type Document struct {
	// Source is the name used in positions: a file name, or what the caller
	// gave Parse. It takes no part in hash or serialisation.
	Source string
	// Filesystem is nil when the section is absent, which is not the same as
	// an empty section; see EffectiveFilesystem.
	Filesystem *Filesystem
	// Landlock is nil when the section is absent: best effort.
	Landlock *Landlock
	// Process is nil when the section is absent.
	Process *Process
	// Rules are the network policies in ascending order of Key.
	Rules []Rule
	// Middlewares are the network middlewares in ascending order of Key.
	Middlewares []Middleware
	// UI is nil when the section is absent. Drivers without a display refuse
	// every explicit section.
	UI *UI

	where map[string]Pos // path of a field to its place in Source
}

// Filesystem says which paths the agent may see.
type Filesystem struct {
	IncludeWorkdir bool     // the working directory, read and write
	ReadOnly       []string // absolute paths
	ReadWrite      []string // absolute paths
}

// Landlock says what happens when the kernel cannot enforce the file rules.
type Landlock struct {
	Compatibility Compatibility
}

// Process says who the agent runs as. An empty string leaves the choice to
// the driver.
type Process struct {
	RunAsUser  string // "sandbox" or a decimal id from 1 to 4294967294
	RunAsGroup string
}

// Rule is one entry of network_policies: these programs may reach these
// endpoints.
type Rule struct {
	Key       string // identity in logs, merges and precedence
	Name      string // display only; empty means the key
	Endpoints []Endpoint
	// Binaries lists the programs. An empty list matches no program.
	Binaries []Binary
	Pos      Pos
}

// Title is the display name of the rule.
func (r *Rule) Title() string {
	if r.Name != "" {
		return r.Name
	}
	return r.Key
}

// Binary names programs: an exact path, or a glob if it contains "*".
type Binary struct {
	Path string
	Pos  Pos
}

// Middleware is one entry of network_middlewares.
type Middleware struct {
	Key             string
	Name            string // display only; empty means the key
	Middleware      string // "openshell/regex" or a registered service
	Order           int32  // unique in a document
	Config          map[string]any
	OnError         OnError
	OnUninspectable OnUninspectable
	Include         []string // host patterns without ports
	Exclude         []string // win over Include
	Pos             Pos
}

// UI is what an agent may do with a display. It exists in unreleased versions
// of the contract; every driver without a display refuses it.
type UI struct {
	AllowGraphicalUI    bool
	Clipboard           Clipboard
	AllowInputInjection bool
}

// EffectiveFilesystem returns the file section with the meaning of absence
// applied: no section at all includes the working directory.
func (d *Document) EffectiveFilesystem() Filesystem {
	if d.Filesystem == nil {
		return Filesystem{IncludeWorkdir: true}
	}
	return *d.Filesystem
}

// EffectiveLandlock returns the Landlock mode, best effort if none is named.
func (d *Document) EffectiveLandlock() Compatibility {
	if d.Landlock == nil || d.Landlock.Compatibility == CompatibilityUnspecified {
		return BestEffort
	}
	return d.Landlock.Compatibility
}

// Rule returns the network policy with that key, or nil.
func (d *Document) Rule(key string) *Rule {
	for i := range d.Rules {
		if d.Rules[i].Key == key {
			return &d.Rules[i]
		}
	}
	return nil
}

// At returns the place of the field with that path, of its nearest parent
// that has one, or the zero Pos for a document that was not parsed.
func (d *Document) At(path string) Pos {
	for path != "" {
		if p, ok := d.where[path]; ok {
			return p
		}
		path = parentPath(path)
	}
	return d.where[""]
}
