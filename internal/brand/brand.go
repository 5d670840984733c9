// Package brand is the one table of every product-derived string.
//
// A second product name costs one line here and nothing elsewhere. It owns
// names only: no file access, no environment access. Everybody may import it.
package brand

// Product names and the strings derived from them.
const (
	Name        = "openshell"            // the command and the configuration directory
	EnvPrefix   = "OPENSHELL_"           // every variable we read or set
	Title       = "OpenShell"            // the product in prose and in event records
	Vendor      = "NVIDIA"               // vendor_name of event records, part of the 0.1.x contract
	Version     = "0.1.9-go"             // the contract we speak, and our own mark
	API         = "0.1.9"                // the API release a client may compare with
	ErrorDomain = "openshell.nvidia.com" // google.rpc.ErrorInfo domain, part of the 0.1.x wire contract
	LabelPrefix = "openshell.ai/"        // labels and annotations of objects
	Internal    = "internal.openshell.ai/"

	CLI        = Name
	Gateway    = Name + "-gateway"
	Supervisor = Name + "-supervisor"
	Launcher   = Name + "-sandbox"
	Client     = Name + "-client" // the sibling of CLI that talks to a gateway

	ConfigDir    = Name            // below $XDG_CONFIG_HOME
	SystemDir    = "/etc/" + Name  // system-wide configuration
	ReservedRoot = "/." + Name     // a directory an image may not use
	HostSuffix   = Name + ".local" // suffix of our own names inside a sandbox

	HostAlias    = "host." + Name + ".internal" // the host as a sandbox names it
	PolicyName   = "policy.local"               // read-only policy answers inside
	InferenceURL = "inference.local"
	ServiceHost  = Name + ".localhost"

	OIDCClient = Name + "-cli"
	ScopeAll   = Name + ":all"
	SSHMain    = Name + "-main" // SSH subsystem of the main process

	GatewayPort = 17670 // packaged gateways listen here
)

// Env returns the full name of one of our environment variables.
func Env(suffix string) string { return EnvPrefix + suffix }
