// Package event holds the security events of the product and their sinks.
//
// An event is one fact an operator would audit: a connection allowed or
// denied, a control confirmed, weakened or hit. It owns their shape (OCSF
// 1.8.0 as the 0.1.x line emits it), the one-line shorthand, the cleaning of
// text chosen by an attacker, redaction, and sinks that never make their
// caller wait. No control character, no bidirectional override and no line
// break of a foreign string reaches a sink: a Sink made here cleans every
// event first. It decides nothing and knows no policy. Everybody may use it.
package event

import (
	"time"
)

// Class is an OCSF class uid.
type Class uint16

// The classes in use.
const (
	Base      Class = 0    // anything without a class of its own
	Process   Class = 1007 // Process Activity
	Finding   Class = 2004 // Detection Finding
	Network   Class = 4001 // Network Activity
	HTTP      Class = 4002 // HTTP Activity
	SSH       Class = 4007 // SSH Activity
	Config    Class = 5019 // Device Config State Change
	Lifecycle Class = 6002 // Application Lifecycle
	API       Class = 6003 // API Activity
)

// Severity is the OCSF severity id.
type Severity uint8

// The severities.
const (
	SeverityUnknown Severity = 0
	Informational   Severity = 1
	Low             Severity = 2
	Medium          Severity = 3
	High            Severity = 4
	Critical        Severity = 5
	Fatal           Severity = 6
)

// Action is the OCSF action id: what the control did.
type Action uint8

// The actions. The zero value claims nothing.
const (
	ActionUnknown Action = 0
	Allowed       Action = 1
	Denied        Action = 2
	Observed      Action = 3
	Modified      Action = 4
)

// Disposition is the OCSF disposition id: what became of the activity.
type Disposition uint8

// The dispositions in use.
const (
	DispositionUnknown Disposition = 0
	DispositionAllowed Disposition = 1
	Blocked            Disposition = 2
	Detected           Disposition = 15
	Rejected           Disposition = 25
	DispositionError   Disposition = 27
)

// Status is the OCSF status id.
type Status uint8

// The statuses.
const (
	StatusUnknown Status = 0
	Success       Status = 1
	Failure       Status = 2
)

// Activity ids by class. Network and SSH share theirs.
const (
	NetOpen   uint8 = 1
	NetClose  uint8 = 2
	NetReset  uint8 = 3
	NetFail   uint8 = 4
	NetRefuse uint8 = 5
	NetListen uint8 = 7

	ProcLaunch    uint8 = 1
	ProcTerminate uint8 = 2

	FindingCreate uint8 = 1

	ConfigLog uint8 = 1

	LifecycleStart uint8 = 3
	LifecycleStop  uint8 = 4

	Other uint8 = 99
)

// Endpoint is one end of a connection.
type Endpoint struct {
	Domain string
	IP     string
	Port   uint16
}

// Actor is the process that did it.
type Actor struct {
	Name    string // path of the executable
	PID     int
	Command string // never with a secret in it: the caller decides
	Parent  string // path of the parent's executable
}

// Pair is one detail without a field of its own.
type Pair struct{ Key, Value string }

// Detection is the body of a Finding.
type Detection struct {
	UID, Title, Description string
	Remedy                  string // what a person can do
	Evidence                []Pair
}

// Event is one fact. The zero value of every field means "not said".
type Event struct {
	Time        time.Time // set by the sink if zero
	Class       Class
	Activity    uint8
	Severity    Severity
	Action      Action
	Disposition Disposition
	Status      Status
	Message     string
	Detail      string // status_detail: the reason of a denial
	Actor       *Actor
	Src, Dst    *Endpoint
	Proxy       *Endpoint
	Rule        string // policy key, "-" for none
	Engine      string // opa, ssrf, l7, ...
	Protocol    string // tcp, udp
	Method, URL string // HTTP only; URL is redacted by the sink
	State       string // Config: label such as loaded, skipped
	App         string // Lifecycle
	ExitCode    *int   // Process
	Detection   *Detection
	Count       int // how many alike this stands for; 0 and 1 are the same
	First, Last time.Time
	Unmapped    []Pair
}

// Sink takes events. Emit never blocks and may be called by many at once; a
// sink that cannot keep up counts what it drops.
type Sink interface {
	Emit(Event)
}

// Discard is the sink that forgets.
var Discard Sink = discard{}

type discard struct{}

func (discard) Emit(Event) {}

// Tee gives every event to all sinks in order.
func Tee(sinks ...Sink) Sink { return tee(sinks) }

type tee []Sink

func (t tee) Emit(e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	for _, s := range t {
		s.Emit(e)
	}
}

// Func makes a sink of a function, which must not block.
type Func func(Event)

// Emit calls f with a cleaned event.
func (f Func) Emit(e Event) { f(Clean(e)) }
