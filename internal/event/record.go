package event

// record is the OCSF object. The order of the fields is the order written.
type record struct {
	ClassUID      Class             `json:"class_uid"`
	ClassName     string            `json:"class_name"`
	CategoryUID   uint8             `json:"category_uid"`
	CategoryName  string            `json:"category_name"`
	ActivityID    uint8             `json:"activity_id"`
	ActivityName  string            `json:"activity_name"`
	TypeUID       uint32            `json:"type_uid"`
	TypeName      string            `json:"type_name"`
	Time          int64             `json:"time"`
	SeverityID    Severity          `json:"severity_id"`
	Severity      string            `json:"severity"`
	StatusID      Status            `json:"status_id,omitempty"`
	Status        string            `json:"status,omitempty"`
	StatusDetail  string            `json:"status_detail,omitempty"`
	Message       string            `json:"message,omitempty"`
	Count         int               `json:"count,omitempty"`
	Start         int64             `json:"start_time,omitempty"`
	End           int64             `json:"end_time,omitempty"`
	ActionID      Action            `json:"action_id,omitempty"`
	Action        string            `json:"action,omitempty"`
	DispositionID Disposition       `json:"disposition_id,omitempty"`
	Disposition   string            `json:"disposition,omitempty"`
	Actor         *actor            `json:"actor,omitempty"`
	Src           *endpoint         `json:"src_endpoint,omitempty"`
	Dst           *endpoint         `json:"dst_endpoint,omitempty"`
	Proxy         *endpoint         `json:"proxy_endpoint,omitempty"`
	Rule          *rule             `json:"firewall_rule,omitempty"`
	Connection    *connection       `json:"connection_info,omitempty"`
	Request       *httpRequest      `json:"http_request,omitempty"`
	Observation   uint8             `json:"observation_point_id,omitempty"`
	Assigned      *bool             `json:"is_src_dst_assignment_known,omitempty"`
	Process       *process          `json:"process,omitempty"`
	ExitCode      *int              `json:"exit_code,omitempty"`
	Finding       *findingInfo      `json:"finding_info,omitempty"`
	Evidences     []evidence        `json:"evidences,omitempty"`
	Remediation   *remediation      `json:"remediation,omitempty"`
	Alert         *bool             `json:"is_alert,omitempty"`
	StateID       uint8             `json:"state_id,omitempty"`
	State         string            `json:"state,omitempty"`
	App           *product          `json:"app,omitempty"`
	Metadata      metadata          `json:"metadata"`
	Device        device            `json:"device"`
	Unmapped      map[string]string `json:"unmapped,omitempty"`
}

type (
	endpoint struct {
		Domain string `json:"domain,omitempty"`
		IP     string `json:"ip,omitempty"`
		Port   uint16 `json:"port,omitempty"`
	}
	process struct {
		Name    string   `json:"name"`
		PID     int      `json:"pid,omitempty"`
		Command string   `json:"cmd_line,omitempty"`
		Parent  *process `json:"parent_process,omitempty"`
	}
	actor struct {
		Process *process `json:"process"`
	}
	rule struct {
		Name string `json:"name"`
		Type string `json:"type,omitempty"`
	}
	connection struct {
		Protocol string `json:"protocol_name"`
	}
	httpRequest struct {
		Method string `json:"http_method"`
		URL    string `json:"url"`
	}
	findingInfo struct {
		UID   string `json:"uid"`
		Title string `json:"title"`
		Desc  string `json:"desc,omitempty"`
	}
	evidence struct {
		Data map[string]string `json:"data"`
	}
	remediation struct {
		Desc string `json:"desc"`
	}
	product struct {
		Name    string `json:"name"`
		Vendor  string `json:"vendor_name,omitempty"`
		Version string `json:"version,omitempty"`
	}
	metadata struct {
		Version  string   `json:"version"`
		Product  product  `json:"product"`
		Profiles []string `json:"profiles"`
		UID      string   `json:"uid"`
		Sequence uint64   `json:"sequence"`
	}
	osInfo struct {
		Name   string `json:"name"`
		TypeID int    `json:"type_id"`
	}
	image struct {
		Name string `json:"name"`
	}
	container struct {
		Name  string `json:"name,omitempty"`
		UID   string `json:"uid,omitempty"`
		Image *image `json:"image,omitempty"`
	}
	device struct {
		Hostname  string     `json:"hostname"`
		OS        osInfo     `json:"os"`
		Type      string     `json:"type"`
		TypeID    int        `json:"type_id"`
		Container *container `json:"container,omitempty"`
	}
)
