// Package compute is the seam between the gateway and whatever runs sandboxes.
//
// It owns the words of that seam: desired state in, observations out, both
// idempotent by sandbox id. It guarantees nothing itself; a driver does, by
// passing computetest.Run. A driver sees this package, model, fault and its
// own client library, never the store or the API.
package compute

import (
	"context"
	"time"

	"openshell.dev/openshell/internal/model"
	"openshell.dev/openshell/internal/secret"
)

// Driver runs sandboxes somewhere. All methods may be called concurrently,
// those about one sandbox only one at a time.
type Driver interface {
	// Describe says what the driver is and can do.
	Describe(ctx context.Context) (Description, error)
	// Create prepares what the sandbox keeps and begins its first run. It
	// returns when the driver has taken over; what happens then is observed.
	// Creating an existing sandbox with the same run changes nothing.
	Create(ctx context.Context, d Desired) error
	// Start begins another run of a sandbox that was created, ending an
	// earlier run if there still is one.
	Start(ctx context.Context, d Desired) error
	// Stop ends the run and returns when none of its processes is left. What
	// the sandbox keeps stays. Stopping what does not run is no error.
	Stop(ctx context.Context, id model.SandboxID, grace time.Duration) error
	// Delete ends the run and removes all that belongs to the sandbox. It
	// returns when nothing is left. Deleting nothing is no error.
	Delete(ctx context.Context, id model.SandboxID) error
	// List observes every sandbox that the driver has.
	List(ctx context.Context) ([]Observation, error)
	// Watch calls f, one call at a time, for every sandbox as it is and then
	// for everything that happens, until ctx ends.
	Watch(ctx context.Context, f func(Event)) error
}

// Description is what a driver says about itself.
type Description struct {
	Name    string
	Version string
	// DefaultImage is what an empty image means.
	DefaultImage string
	CPULimits    bool
	MemoryLimits bool
	// GPU says that devices can be given to a sandbox.
	GPU bool
}

// Desired is a sandbox as it should be, with the run to begin.
type Desired struct {
	ID        model.SandboxID
	Name      string
	Workspace string

	Image   string   // empty: the driver's default
	Command []string // empty: a login shell on a terminal
	Env     map[string]string
	TTY     bool

	Policy        []byte // document as JSON or YAML; empty: the image's, else the restrictive default
	PolicyVersion uint32

	Limits Limits
	// Config is the driver's part of the template's driver_config.
	Config map[string]any

	Run Run
}

// Limits are resource limits; zero means none.
type Limits struct {
	MilliCPU int64
	Memory   int64 // bytes
	GPUs     uint32
}

// Run is one run of the main process.
type Run struct {
	InstanceID string
	// Endpoint is where the supervisor finds the gateway, unix:// or http(s).
	Endpoint string
	CAFile   string
	Token    secret.Value
	// AwaitAttachment keeps the end of the main process until somebody has
	// read its output.
	AwaitAttachment bool
	OutageLimit     time.Duration
}

// State is what a driver sees of a run.
type State uint8

// The states. The zero value is unknown.
const (
	Unknown   State = iota
	Preparing       // image and storage
	Running         // the supervisor's process exists
	Stopped         // ended because it was asked to
	Failed          // ended, or never began, without being asked to
)

// Observation is what a driver sees of one sandbox.
type Observation struct {
	ID         model.SandboxID
	InstanceID string
	State      State
	// Reason and Message say why, in the words of model and for a person.
	Reason  string
	Message string
	// Rebooted says that the host was started anew since the run began.
	Rebooted bool
}

// Event is something that happened. Exactly one of Observation and Note is
// set.
type Event struct {
	Observation *Observation
	Note        *Note
}

// Note tells a person how far a driver is; it changes no state.
type Note struct {
	ID         model.SandboxID
	InstanceID string
	Time       time.Time
	Type       string // Normal or Warning
	Reason     string
	Message    string
}
