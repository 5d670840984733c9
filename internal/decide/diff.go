package decide

import (
	"slices"
	"strings"

	"openshell.dev/openshell/internal/l7"
	"openshell.dev/openshell/internal/policy"
)

// Difference is one thing that two policies decide differently. It carries
// the witness: asking both policies about it gives the two answers.
type Difference struct {
	Gained  bool // possible by the second policy only; else by the first only
	Flow    Flow
	Request *l7.Facts // nil: the connection as such
	Before  Ruling
	After   Ruling
	Rule    RuleRef // the rule that allows it, in the policy that does
}

// Diff returns what becomes possible and what becomes impossible from one
// policy to the other, one witness for each endpoint, port, program and rule
// that either names, at most limit of them. Every difference it reports is
// real, because both policies were asked. It may miss one that only shows for
// values neither policy names; package prove will be exact.
func Diff(before, after *Index, limit int) []Difference {
	d := differ{before: before, after: after, limit: limit, seen: map[string]bool{}}
	for _, ix := range []*Index{after, before} {
		if ix == nil {
			continue
		}
		for _, e := range ix.all {
			d.endpoint(e)
		}
	}
	slices.SortStableFunc(d.out, func(a, b Difference) int {
		switch {
		case a.Gained == b.Gained:
			return strings.Compare(a.Rule.Key, b.Rule.Key)
		case a.Gained:
			return -1
		}
		return 1
	})
	return d.out
}

type differ struct {
	before, after *Index
	limit         int
	seen          map[string]bool // hosts, ports, programs and requests asked
	out           []Difference
}

func (d *differ) endpoint(e *endpoint) {
	for _, host := range witnessHosts(e.doc) {
		for _, port := range e.doc.Ports {
			for _, b := range e.rule.doc.Binaries {
				f := Flow{Host: host, Port: port, Programs: [][]Program{{{Path: witnessPath(b.Path)}}}}
				if !d.ask(f, nil) {
					for _, r := range witnessRequests(e) {
						d.ask(f, r)
					}
				}
			}
		}
	}
}

// ask reports whether the connection as such differs.
func (d *differ) ask(f Flow, r *l7.Facts) bool {
	key := f.Host + "\n" + ports([]uint16{f.Port}) + "\n" + f.Programs[0][0].Path
	if r == nil {
		// The connection differs if one of them does not allow it at all.
		if before, after := d.before.Connect(f), d.after.Connect(f); before.Allow != after.Allow {
			d.add(key, Difference{Gained: after.Allow, Flow: f, Before: connectRuling(before), After: connectRuling(after)})
			return true
		}
		return false
	}
	key += "\n" + r.Method + "\n" + r.Path
	if r.RPC != nil && len(r.RPC.Messages) > 0 {
		key += "\n" + r.RPC.Messages[0].Method + "\n" + r.RPC.Messages[0].Tool
	}
	if r.GraphQL != nil && len(r.GraphQL.Operations) > 0 {
		key += "\n" + r.GraphQL.Operations[0].Type + "\n" + strings.Join(r.GraphQL.Operations[0].Fields, ",")
	}
	for _, q := range r.Query {
		key += "\n" + q.Name + "=" + q.Value
	}
	before, after := d.before.Request(f, r), d.after.Request(f, r)
	if before.Allow != after.Allow {
		d.add(key, Difference{Gained: after.Allow, Flow: f, Request: r, Before: before, After: after})
	}
	return false
}

func connectRuling(v Verdict) Ruling {
	return Ruling{Allow: v.Allow, Hard: !v.Allow, Reason: v.Reason, Rule: v.Rule, Index: -1, Holder: v.Holder}
}

func (d *differ) add(key string, x Difference) {
	if d.seen[key] || len(d.out) >= d.limit {
		return
	}
	d.seen[key] = true
	x.Rule = x.Before.Rule
	if x.Gained {
		x.Rule = x.After.Rule
	}
	d.out = append(d.out, x)
}

// witnessHosts returns hosts that the endpoint covers: its own, or names made
// from the pattern.
func witnessHosts(e *policy.Endpoint) []string {
	if e.Host == "" {
		var out []string
		for _, s := range e.AllowedIPs {
			if p, err := policy.ParseAllowedIP(s); err == nil {
				out = append(out, p.Addr().String())
			}
		}
		return append(out, "any-name.example")
	}
	host, err := policy.ParseHost(e.Host)
	if err != nil {
		return nil
	}
	if host.Exact() {
		return []string{host.String()}
	}
	labels := slices.Clone(host.Labels())
	last := labels[len(labels)-1]
	number := last == "*" && strings.Trim(labels[0], "0123456789") == ""
	for i, l := range labels {
		fill := "any"
		if number {
			fill = "1" // "10.*.*.*" means addresses
		}
		labels[i] = strings.ReplaceAll(strings.ReplaceAll(l, "**", fill), "*", fill)
	}
	out := []string{strings.Join(labels, ".")}
	if host.Labels()[0] == "**" {
		out = append(out, "deep."+out[0])
	}
	return out
}

// witnessPath makes a path that a glob covers.
func witnessPath(glob string) string {
	if !strings.Contains(glob, "*") {
		return glob
	}
	s := strings.ReplaceAll(strings.ReplaceAll(glob, "**", "any"), "*", "any")
	if g, err := policy.CompileGlob(glob, '/'); err == nil && g.Match(s, '/') {
		return s
	}
	return glob // braces and brackets: taken as they are, which may find nothing
}

// witnessRequests makes a request for each rule of an endpoint, and the common
// ones.
func witnessRequests(e *endpoint) (out []*l7.Facts) {
	in := e.inspection
	route := "/any"
	if in != nil && !in.path.all {
		route = witnessPath(e.doc.Path)
	}
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		out = append(out, &l7.Facts{Method: method, Path: route})
	}
	if in == nil {
		return out
	}
	rules := slices.Concat(e.doc.Allow, e.doc.Deny)
	for _, word := range presets[e.doc.Protocol][e.doc.Access] {
		if e.doc.Protocol == policy.GraphQL {
			rules = append(rules, policy.L7Rule{OperationType: word})
		} else {
			rules = append(rules, policy.L7Rule{Method: word, Path: "/**"})
		}
	}
	if in.core {
		for m := range coreMethods {
			rules = append(rules, policy.L7Rule{Method: m})
		}
		slices.SortFunc(rules, func(a, b policy.L7Rule) int { return strings.Compare(a.Method, b.Method) })
	}
	for i := range rules {
		out = append(out, in.witness(&rules[i], route)...)
	}
	return out
}

func (in *inspection) witness(r *policy.L7Rule, route string) (out []*l7.Facts) {
	switch {
	case in.protocol == policy.MCP || in.protocol == policy.JSONRPC:
		m := l7.Message{Kind: l7.Call, Method: strings.ReplaceAll(r.Method, "*", "list")}
		tools := []string{""}
		if t := r.ToolMatcher(); t != nil {
			m.Method, tools = toolsCall, t.Globs()
		} else if m.Method == toolsCall {
			tools = []string{"any"}
		}
		for _, tool := range tools {
			m.Tool = strings.ReplaceAll(tool, "*", "any")
			for _, v := range in.revisions {
				out = append(out, &l7.Facts{Method: "POST", Path: route, RPC: &l7.RPC{Messages: []l7.Message{m}, Revision: string(v), Revisions: 1}})
			}
		}
		return out
	case r.OperationType != "":
		for _, kind := range []string{"query", "mutation", "subscription"} {
			if r.OperationType != "*" && !strings.EqualFold(r.OperationType, kind) {
				continue
			}
			op := l7.Operation{Type: kind, Name: strings.ReplaceAll(r.OperationName, "*", "any"), Fields: []string{"any"}}
			for _, field := range append([]string{"*"}, r.Fields...) {
				op.Fields = []string{strings.ReplaceAll(field, "*", "any")}
				f := &l7.Facts{Method: "POST", Path: route, GraphQL: &l7.GraphQL{Operations: []l7.Operation{op}}}
				if in.protocol == policy.WebSocket {
					f.Method = l7.WebSocketText
				}
				out = append(out, f)
			}
		}
		return out
	}
	methods := []string{strings.ToUpper(r.Method)}
	if r.Method == "*" {
		methods = []string{"GET", "POST", "PUT", "PATCH", "DELETE"}
		if in.protocol == policy.WebSocket {
			methods = []string{"GET", l7.WebSocketText}
		}
	}
	path := witnessPath(r.Path)
	if r.Path == "/**" || r.Path == "**" {
		path = route
	}
	for _, method := range methods {
		f := &l7.Facts{Method: method, Path: path, Upgrade: in.protocol == policy.WebSocket && method == "GET"}
		f.WebSocket = f.Upgrade
		for i := range r.Query {
			f.Query = append(f.Query, l7.Param{Name: r.Query[i].Name, Value: strings.ReplaceAll(r.Query[i].Globs()[0], "*", "any")})
		}
		out = append(out, f)
		if len(f.Query) > 0 {
			bare := *f
			bare.Query = nil
			out = append(out, &bare)
		}
	}
	return out
}
