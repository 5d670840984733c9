package policy

// feature is one thing a valid document may ask for that this version does
// not enforce. A row is deleted when the enforcer learns it, and nothing else
// has to change.
type feature struct {
	what     string
	field    string // below the endpoint, or "" for the endpoint itself
	endpoint func(e *Endpoint) bool
}

var unenforcedEndpoint = []feature{
	{"requests are not inspected yet, so protocol and its rules would not be enforced", "protocol", func(e *Endpoint) bool {
		return e.Protocol.Inspected()
	}},
	{"the sql protocol has no enforcement", "protocol", func(e *Endpoint) bool { return e.Protocol == SQL }},
	{"without protocol nothing reads requests, so path would not be enforced", "path", func(e *Endpoint) bool {
		return e.Protocol == ProtocolNone && e.Path != "" && e.Path != "**" && e.Path != "/**"
	}},
	{"without protocol nothing reads requests, so rules would not be enforced", "rules", func(e *Endpoint) bool {
		return e.Protocol == ProtocolNone && len(e.Allow) > 0
	}},
	{"without protocol nothing reads requests, so access would not be enforced", "access", func(e *Endpoint) bool {
		return e.Protocol == ProtocolNone && e.Access != AccessNone && e.Access != Full
	}},
	{"credentials are not delivered yet", "credential_binding", func(e *Endpoint) bool { return e.CredentialProvider != "" }},
	{"credentials are not delivered yet", "request_body_credential_rewrite", func(e *Endpoint) bool { return e.RequestBodyRewrite }},
	{"credentials are not delivered yet", "websocket_credential_rewrite", func(e *Endpoint) bool { return e.WebSocketRewrite }},
	{"requests are not signed yet", "credential_signing", func(e *Endpoint) bool { return e.Signing != SigningNone }},
}

// Unenforced returns what the present enforcer would not enforce although the
// document is valid, each by name and place. A caller about to enforce d must
// refuse it if there is any: a rule that is silently without effect is worse
// than none.
func Unenforced(d *Document) []Violation {
	c := &checker{d: d}
	for i := range d.Rules {
		base := join("network_policies", d.Rules[i].Key) + ".endpoints"
		for j := range d.Rules[i].Endpoints {
			e := &d.Rules[i].Endpoints[j]
			for _, f := range unenforcedEndpoint {
				if f.endpoint(e) {
					c.add(NotYet, join(index(base, j), f.field), "not supported by this version: %s", f.what)
				}
			}
		}
	}
	for i := range d.Middlewares {
		c.add(NotYet, join("network_middlewares", d.Middlewares[i].Key), "not supported by this version: middlewares are not called yet")
	}
	if d.UI != nil {
		c.add(NotYet, "ui", "not supported by this version: no driver has a display")
	}
	return c.vs
}
