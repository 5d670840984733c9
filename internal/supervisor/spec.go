// Package supervisor is the outside half of one sandbox.
//
// It starts the launcher, receives the descriptors of the sandbox's network,
// decides and relays every connection, starts processes inside and reports
// what happened. It runs no agent code and needs no privilege. The command
// line uses it in its own process (openshell run); the native driver executes
// it as a program (openshell-supervisor).
package supervisor

import "time"

// Spec is all that one sandbox is made from. The native driver hands it over
// as JSON in a file of mode 0600; unknown fields are refused.
type Spec struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Workspace string `json:"workspace,omitempty"`
	// StateDir is the sandbox's own directory outside (journal, overlay,
	// private home, sockets); it exists and belongs to us.
	StateDir string `json:"state_dir"`
	// Journals is where the records of placeholders are, the same for all
	// sandboxes of an account; empty means the account's state directory.
	Journals string `json:"journals,omitempty"`

	Files  Files  `json:"files"`
	Main   Main   `json:"main"`
	Limits Limits `json:"limits"`

	// Policy is the policy document (YAML or JSON); empty means the default
	// of run: no network, the system read-only, the workspace read-write.
	Policy []byte `json:"policy,omitempty"`
	// Allow adds HOST[:PORT] destinations for every program.
	Allow      []string `json:"allow,omitempty"`
	PolicyName string   `json:"policy_name,omitempty"` // for positions in messages
	// PolicyVersion is the gateway's revision of Policy; 0 without a gateway.
	PolicyVersion uint32 `json:"policy_version,omitempty"`

	// Hostname inside; empty means the sandbox's name.
	Hostname string `json:"hostname,omitempty"`
	// Timeout ends the main process; 0 means none.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Events is a file that gets security events as JSON lines; empty means
	// StateDir/events.jsonl.
	Events string `json:"events,omitempty"`

	// Gateway is where the session goes; nil without a gateway.
	Gateway *Gateway `json:"gateway,omitempty"`
}

// Files says what the sandbox sees of the file system.
type Files struct {
	// Root is "host" for the host's own system directories, else a
	// directory with a root file system.
	Root string `json:"root"`
	// Upper and Work make an overlay over Root that keeps changes; empty
	// means Root is read-only (host) or a private tmpfs overlay.
	Upper string `json:"upper,omitempty"`
	Work  string `json:"work,omitempty"`
	// Workspace is a host directory seen read-write at the same path (host
	// root) or at WorkspaceAt; empty means a private directory.
	Workspace   string   `json:"workspace,omitempty"`
	WorkspaceAt string   `json:"workspace_at,omitempty"`
	ReadOnly    []string `json:"read_only,omitempty"`
	ReadWrite   []string `json:"read_write,omitempty"`
	Hidden      []string `json:"hidden,omitempty"`
	// Trusting lifts the default protections inside the workspace: for one
	// that only this sandbox uses.
	Trusting bool `json:"trusting,omitempty"`
	// Home is a host directory used as the private home; empty means tmpfs.
	Home   string `json:"home,omitempty"`
	HomeAt string `json:"home_at,omitempty"` // path of the home inside; empty means the caller's own
}

// Main is the main process.
type Main struct {
	// Argv is empty for a login shell: bash if there is one, else sh.
	Argv []string `json:"argv,omitempty"`
	// Env are the entries added to the built-in environment.
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir,omitempty"`
	TTY  bool     `json:"tty,omitempty"`
	User string   `json:"user,omitempty"` // the image's USER; shown, ids stay the caller's
}

// Limits are resource limits; zero means none.
type Limits struct {
	MilliCPU int64 `json:"milli_cpu,omitempty"`
	Memory   int64 `json:"memory,omitempty"` // bytes
	Pids     int64 `json:"pids,omitempty"`
}

// Gateway is the control plane of a supervisor.
type Gateway struct {
	// Endpoint is unix:///path or http(s)://host:port.
	Endpoint string `json:"endpoint"`
	CAFile   string `json:"ca_file,omitempty"`
	// TokenFile holds the sandbox token; it is read again at every connect.
	TokenFile string `json:"token_file"`
	// InstanceID identifies this run of the main process.
	InstanceID string `json:"instance_id"`
	// OutageLimit stops the sandbox when the gateway is gone that long; 0
	// means the contract's 120 s.
	OutageLimit time.Duration `json:"outage_limit,omitempty"`
	// AwaitAttachment holds the end of a finished main process until one
	// attachment has read its output.
	AwaitAttachment bool `json:"await_attachment,omitempty"`
}
