package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"openshell.dev/openshell/internal/brand"
)

// schemaVersion is the OCSF version of every record.
const schemaVersion = "1.8.0"

// Origin says whose events these are; it is the same for all events of a sink.
type Origin struct {
	SandboxID   string
	SandboxName string
	Image       string
	Hostname    string
	Product     string // default: the supervisor's name
}

// JSON returns the OCSF record of e on one line without a line break.
// seq numbers the records of one sink, so that a gap can be seen.
func JSON(o Origin, seq uint64, e Event) ([]byte, error) {
	e = Clean(e)
	words := classWords[e.Class]
	act := e.Class.activity(e.Activity)
	r := record{
		ClassUID: e.Class, ClassName: words.name,
		CategoryUID: words.category, CategoryName: categoryNames[words.category],
		ActivityID: e.Activity, ActivityName: act,
		TypeUID: uint32(e.Class)*100 + uint32(e.Activity), TypeName: words.name + ": " + act,
		Time:       e.Time.UnixMilli(),
		SeverityID: e.Severity, Severity: severityNames[e.Severity],
		StatusDetail: e.Detail, Message: e.Message,
		Metadata: metadata{
			Version:  schemaVersion,
			Product:  product{Name: o.product(), Vendor: brand.Vendor, Version: brand.Version},
			Profiles: words.profiles,
			UID:      fmt.Sprintf("%s-%x-%d", orDash(o.SandboxID), e.Time.UnixNano(), seq),
			Sequence: seq,
		},
		Device: device{
			Hostname: orDash(o.Hostname), OS: osInfo{"Linux", 200}, Type: "Sandbox", TypeID: 99,
			Container: &container{Name: o.SandboxName, UID: o.SandboxID, Image: o.image()},
		},
		Unmapped: pairs(e.Unmapped),
	}
	e.fill(&r)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func (o Origin) product() string {
	if o.Product != "" {
		return o.Product
	}
	return brand.Title + " Sandbox Supervisor"
}

func (o Origin) image() *image {
	if o.Image == "" {
		return nil
	}
	return &image{o.Image}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (e *Event) fill(r *record) {
	if e.Status != StatusUnknown {
		r.StatusID, r.Status = e.Status, statusNames[e.Status]
	}
	if e.Action != ActionUnknown {
		r.ActionID, r.Action = e.Action, actionNames[e.Action]
	}
	if e.Disposition != DispositionUnknown {
		r.DispositionID, r.Disposition = e.Disposition, dispositionNames[e.Disposition]
	}
	r.Src, r.Dst, r.Proxy = e.Src.json(), e.Dst.json(), e.Proxy.json()
	if e.Rule != "" || e.Engine != "" {
		r.Rule = &rule{orDash(e.Rule), e.Engine}
	}
	if e.Protocol != "" {
		r.Connection = &connection{e.Protocol}
	}
	if e.Count > 1 {
		r.Count, r.Start, r.End = e.Count, millis(e.First), millis(e.Last)
	}
	proc := e.Actor.json()
	switch e.Class {
	case Network, HTTP, SSH:
		known := true
		r.Assigned, r.Observation = &known, 2
		if proc != nil {
			r.Actor = &actor{proc}
		}
		if e.Class == HTTP {
			r.Request = &httpRequest{e.Method, e.URL}
		}
	case Process:
		r.Process, r.ExitCode = proc, e.ExitCode
	case Finding:
		if proc != nil {
			r.Actor = &actor{proc}
		}
		e.fillFinding(r)
	case Config:
		r.State, r.StateID = e.State, 99
	case Lifecycle:
		r.App = &product{Name: e.App, Vendor: brand.Vendor, Version: brand.Version}
	}
}

func (e *Event) fillFinding(r *record) {
	d := e.Detection
	if d == nil {
		return
	}
	r.Finding = &findingInfo{UID: d.UID, Title: d.Title, Desc: d.Description}
	if d.Remedy != "" {
		r.Remediation = &remediation{d.Remedy}
	}
	for _, p := range d.Evidence {
		r.Evidences = append(r.Evidences, evidence{map[string]string{p.Key: p.Value}})
	}
	alert := e.Severity >= High
	r.Alert = &alert
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func pairs(in []Pair) map[string]string {
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for _, p := range in {
		out[p.Key] = p.Value
	}
	return out
}

func (p *Endpoint) json() *endpoint {
	if p == nil {
		return nil
	}
	return &endpoint{p.Domain, p.IP, p.Port}
}

func (a *Actor) json() *process {
	if a == nil {
		return nil
	}
	p := &process{Name: a.Name, PID: a.PID, Command: a.Command}
	if a.Parent != "" {
		p.Parent = &process{Name: a.Parent}
	}
	return p
}
