package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Ambiguities returns a violation for each pair of endpoints that can mean
// the same connection or request and would treat it differently. A document
// with any must not be enforced: which one holds would be an accident.
func Ambiguities(d *Document) []Violation {
	a := &ambiguity{checker: checker{d: d}, exact: map[hostPort][]int{}, classes: map[string]int{}}
	for i := range d.Rules {
		for j := range d.Rules[i].Endpoints {
			a.insert(i, j)
		}
	}
	a.compare()
	return a.vs
}

// site is one endpoint, ready to be compared.
type site struct {
	rule, index int
	e           *Endpoint
	host        HostPattern
	ips         string
	// class is equal for endpoints that are the same in everything compared;
	// two of them cannot conflict.
	class int
}

type hostPort struct {
	host string
	port uint16
}

type ambiguity struct {
	checker
	sites   []site
	exact   map[hostPort][]int // endpoints with one host, as indexes of sites
	broad   []int              // patterns and endpoints without host
	classes map[string]int
}

func (a *ambiguity) insert(i, j int) {
	e := &a.d.Rules[i].Endpoints[j]
	host, err := ParseHost(e.Host)
	if err != nil && e.Host != "" {
		return // Validate says so
	}
	ips := make([]string, len(e.AllowedIPs))
	for k, ip := range e.AllowedIPs {
		ips[k] = strings.ToLower(strings.TrimSpace(ip))
	}
	slices.Sort(ips)
	n := len(a.sites)
	s := site{rule: i, index: j, e: e, host: host, ips: strings.Join(slices.Compact(ips), ",")}
	key := s.key()
	class, ok := a.classes[key]
	if !ok {
		class = len(a.classes)
		a.classes[key] = class
	}
	s.class = class
	a.sites = append(a.sites, s)
	if e.Host == "" || !host.Exact() {
		a.broad = append(a.broad, n)
		return
	}
	for _, p := range e.Ports {
		at := hostPort{host.String(), p}
		if list := a.exact[at]; len(list) == 0 || list[len(list)-1] != n {
			a.exact[at] = append(list, n)
		}
	}
}

// compare visits every pair that can conflict, each once.
func (a *ambiguity) compare() {
	done := map[[2]int]bool{}
	pair := func(x, y int) {
		if a.sites[x].class == a.sites[y].class || len(a.vs) >= maxViolations {
			return
		}
		if x > y {
			x, y = y, x
		}
		if key := [2]int{x, y}; !done[key] && a.pair(&a.sites[x], &a.sites[y]) {
			done[key] = true
		}
	}
	for _, list := range a.exact {
		for i, x := range list {
			for _, y := range list[:i] {
				pair(x, y)
			}
		}
	}
	for i, x := range a.broad {
		for _, y := range a.broad[:i] {
			pair(x, y)
		}
		for y := range a.sites {
			if s := &a.sites[y]; s.e.Host != "" && s.host.Exact() {
				pair(x, y)
			}
		}
	}
	slices.SortFunc(a.vs, func(x, y Violation) int { return strings.Compare(x.Text, y.Text) })
}

// key is everything compared, as one string.
func (s *site) key() string {
	var b strings.Builder
	for _, traits := range [][]trait{s.connection(), s.metadata(), s.mcp()} {
		for _, t := range traits {
			b.WriteString(t.value)
			b.WriteByte(0)
		}
	}
	b.WriteString(s.e.Path)
	if s.contributes() {
		b.WriteByte(1)
	}
	return b.String()
}

// pair reports whether the two conflict, and says so.
func (a *ambiguity) pair(x, y *site) bool {
	var ports []string
	for _, p := range x.e.Ports {
		if slices.Contains(y.e.Ports, p) {
			ports = append(ports, fmt.Sprint(p))
		}
	}
	if len(ports) == 0 || x.e.Host != "" && y.e.Host != "" && !x.host.Overlaps(y.host) {
		return false
	}
	conflicts := differ(nil, x.connection(), y.connection())
	if x.contributes() && y.contributes() && specificity(x.e.Path) == specificity(y.e.Path) && pathsOverlap(x.e.Path, y.e.Path) {
		conflicts = differ(conflicts, x.metadata(), y.metadata())
	}
	switch mx, my := x.e.Protocol == MCP, y.e.Protocol == MCP; {
	case mx && my:
		conflicts = differ(conflicts, x.mcp(), y.mcp())
	case mx && y.e.Protocol.Inspected(), my && x.e.Protocol.Inspected():
		if !slices.ContainsFunc(conflicts, func(s string) bool { return strings.HasPrefix(s, "protocol=") }) {
			conflicts = append(conflicts, fmt.Sprintf("protocol=%s vs %s", x.e.Protocol, y.e.Protocol))
		}
	}
	if len(conflicts) == 0 {
		return false
	}
	path := index(join("network_policies", a.d.Rules[y.rule].Key)+".endpoints", y.index)
	a.vs = append(a.vs, Violation{
		Class: Ambiguous, Pos: y.e.Pos, Path: path,
		Text: fmt.Sprintf("network policies %s and %s overlap on port(s) %s with conflicting metadata: %s%s",
			a.name(x), a.name(y), strings.Join(ports, ", "), strings.Join(conflicts, "; "), a.other(x)),
		Hint: "give both endpoints the same " + fieldName(conflicts[0]) + ", or narrow one by host or port so that they do not overlap",
	})
	return true
}

// other says where the first endpoint of a pair stands.
func (a *ambiguity) other(x *site) string {
	if !x.e.Pos.Known() {
		return ""
	}
	return " (the other is at " + x.e.Pos.In(a.d.Source) + ")"
}

func fieldName(conflict string) string {
	name, _, _ := strings.Cut(conflict, "=")
	return name
}

func (a *ambiguity) name(s *site) string {
	ports := make([]string, len(s.e.Ports))
	for i, p := range s.e.Ports {
		ports[i] = fmt.Sprint(p)
	}
	where := s.e.Host + ":" + strings.Join(ports, ",")
	if s.e.Path != "" {
		where += " " + s.e.Path
	}
	return fmt.Sprintf("'%s' endpoint[%d] (%s)", a.d.Rules[s.rule].Key, s.index, where)
}

// contributes reports whether the endpoint says how requests are treated. A
// plain one does not, so it may lie over an inspected one.
func (s *site) contributes() bool {
	e := s.e
	return e.Protocol != ProtocolNone && e.Protocol != TCP || len(e.AllowedIPs) > 0 || e.TLS != TLSAuto || e.CredentialProvider != ""
}

type trait struct{ name, value string }

// connection is what must agree wherever two endpoints overlap.
func (s *site) connection() []trait {
	tls := "auto"
	if s.e.TLS != TLSAuto {
		tls = s.e.TLS.String()
	}
	return []trait{
		{"transparent_tcp_eligible", fmt.Sprint(s.e.Protocol == TCP)},
		{"tls", tls},
		{"allowed_ips", "[" + s.ips + "]"},
	}
}

// metadata is what must agree where two paths overlap equally closely.
func (s *site) metadata() []trait {
	e := s.e
	enforcement := Audit
	if e.Enforcement.Enforced() {
		enforcement = Enforce
	}
	graphQL := false
	for i := range e.Allow {
		graphQL = graphQL || e.Protocol == WebSocket && e.Allow[i].graphQL()
	}
	return []trait{
		{"protocol", e.Protocol.String()},
		{"enforcement", enforcement.String()},
		{"allow_encoded_slash", fmt.Sprint(e.AllowEncodedSlash)},
		{"websocket_credential_rewrite", fmt.Sprint(e.WebSocketRewrite)},
		{"request_body_credential_rewrite", fmt.Sprint(e.RequestBodyRewrite)},
		{"websocket_graphql_policy", fmt.Sprint(graphQL)},
		{"credential_signing", e.Signing.String()},
		{"signing_service", e.SigningService},
		{"signing_region", e.SigningRegion},
		{"credential_binding.provider", e.CredentialProvider},
		{"graphql_max_body_bytes", fmt.Sprint(MaxBody(e.GraphQLMaxBody))},
		{"json_rpc.max_body_bytes", fmt.Sprint(MaxBody(e.JSONRPCMaxBody))},
	}
}

func (s *site) mcp() []trait {
	m := s.e.MCP
	if m == nil {
		m = &MCPOptions{}
	}
	return []trait{
		{"mcp.versions", fmt.Sprint(s.e.EffectiveMCPVersions())},
		{"mcp.strict_tool_names", fmt.Sprint(!m.LooseToolNames)},
		{"mcp.allow_all_known_mcp_methods", fmt.Sprint(m.AllowCoreMethods)},
		{"mcp.max_body_bytes", fmt.Sprint(MaxBody(m.MaxBody))},
	}
}

// MaxBody applies the default to a body limit.
func MaxBody(n uint32) uint32 {
	if n == 0 {
		return DefaultMaxBody
	}
	return n
}

func differ(to []string, x, y []trait) []string {
	for i := range x {
		if x[i].value != y[i].value {
			to = append(to, fmt.Sprintf("%s=%s vs %s", x[i].name, orNone(x[i].value), orNone(y[i].value)))
		}
	}
	return to
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

// specificity orders endpoint paths: the more fixed characters, the closer.
func specificity(path string) int { return len(path) - strings.Count(path, "*") }

// pathsOverlap reports whether two endpoint paths have a path in common,
// where "*" and "**" may stand for anything.
func pathsOverlap(a, b string) bool {
	everything := func(p string) bool { return p == "" || p == "**" || p == "/**" }
	if everything(a) || everything(b) {
		return true
	}
	return wildOverlap(widen(a), widen(b))
}

// widen makes "/x/**" cover "/x" too, as the choice of an endpoint does.
func widen(p string) string {
	if head, ok := strings.CutSuffix(p, "/**"); ok {
		return head + "*"
	}
	return p
}
