package event

import "strings"

// The names of OCSF 1.8.0 for the numbers in use.
var classWords = map[Class]struct {
	name       string
	category   uint8
	prefix     string // of the shorthand
	activities map[uint8]string
	profiles   []string
}{
	Base:      {"Base Event", 0, "EVENT", nil, hostProfiles},
	Process:   {"Process Activity", 1, "PROC", map[uint8]string{1: "Launch", 2: "Terminate", 3: "Open", 4: "Inject", 5: "Set User ID"}, controlProfiles},
	Finding:   {"Detection Finding", 2, "FINDING", map[uint8]string{1: "Create", 2: "Update", 3: "Close"}, controlProfiles},
	Network:   {"Network Activity", 4, "NET", netActivities, proxyProfiles},
	HTTP:      {"HTTP Activity", 4, "HTTP", httpActivities, proxyProfiles},
	SSH:       {"SSH Activity", 4, "SSH", netActivities, controlProfiles},
	Config:    {"Device Config State Change", 5, "CONFIG", map[uint8]string{1: "Log", 2: "Collect"}, controlProfiles},
	Lifecycle: {"Application Lifecycle", 6, "LIFECYCLE", map[uint8]string{1: "Install", 2: "Remove", 3: "Start", 4: "Stop", 5: "Restart", 6: "Enable", 7: "Disable", 8: "Update"}, hostProfiles},
	API:       {"API Activity", 6, "API", nil, hostProfiles},
}

var (
	proxyProfiles   = []string{"security_control", "network_proxy", "container", "host"}
	controlProfiles = []string{"security_control", "container", "host"}
	hostProfiles    = []string{"container", "host"}

	netActivities  = map[uint8]string{1: "Open", 2: "Close", 3: "Reset", 4: "Fail", 5: "Refuse", 6: "Traffic", 7: "Listen"}
	httpActivities = map[uint8]string{1: "Connect", 2: "Delete", 3: "Get", 4: "Head", 5: "Options", 6: "Post", 7: "Put", 8: "Trace", 9: "Patch"}

	categoryNames = map[uint8]string{0: "Uncategorized", 1: "System Activity", 2: "Findings", 4: "Network Activity", 5: "Discovery", 6: "Application Activity"}

	severityNames = map[Severity]string{0: "Unknown", 1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical", 6: "Fatal"}
	severityTags  = map[Severity]string{0: "INFO", 1: "INFO", 2: "LOW", 3: "MED", 4: "HIGH", 5: "CRIT", 6: "FATAL"}

	actionNames      = map[Action]string{0: "Unknown", 1: "Allowed", 2: "Denied", 3: "Observed", 4: "Modified"}
	dispositionNames = map[Disposition]string{0: "Unknown", 1: "Allowed", 2: "Blocked", 15: "Detected", 25: "Rejected", 27: "Error"}
	statusNames      = map[Status]string{0: "Unknown", 1: "Success", 2: "Failure"}
)

// HTTPActivity returns the activity id of an HTTP method, Other for those
// without one.
func HTTPActivity(method string) uint8 {
	for id, name := range httpActivities {
		if strings.EqualFold(name, method) {
			return id
		}
	}
	return Other
}

func (c Class) activity(id uint8) string {
	if name := classWords[c].activities[id]; name != "" {
		return name
	}
	return "Other"
}
