package policy

import (
	"fmt"
	"slices"
	"strings"
)

var httpMethods = []string{"*", "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "MKCOL", "COPY", "MOVE", "REPORT"}

// lintRules looks at the request rules of an endpoint.
func (c *checker) lintRules(e *Endpoint, at string) {
	for i := range e.Allow {
		path := index(at+".rules", i)
		c.lintL7(e, &e.Allow[i], path)
		if (e.Protocol == REST || e.Protocol == WebSocket) && e.Allow[i].Method == "*" && coversAllPaths(e.Allow[i].Path) && len(e.Allow[i].Query) == 0 {
			c.add(Advice, path, "this rule allows every request; access: full says the same")
		}
		for j := range i {
			if e.Allow[j].coversRule(&e.Allow[i]) {
				c.add(Advice, path, "rules[%d] already allows all of this", j)
				break
			}
		}
	}
	for i := range e.Deny {
		path := index(at+".deny_rules", i)
		c.lintL7(e, &e.Deny[i], path)
		if (e.Protocol == REST || e.Protocol == WebSocket) && e.Deny[i].Method == "*" && coversAllPaths(e.Deny[i].Path) && len(e.Deny[i].Query) == 0 {
			c.add(Advice, path, "this rule denies every request of every rule for this host")
		}
		for j := range i {
			if e.Deny[j].coversRule(&e.Deny[i]) {
				c.add(Advice, path, "deny_rules[%d] already denies all of this", j)
				break
			}
		}
	}
}

func coversAllPaths(p string) bool { return p == "**" || p == "/**" }

func (c *checker) lintL7(e *Endpoint, r *L7Rule, at string) {
	switch e.Protocol {
	case REST:
		if !slices.Contains(httpMethods, strings.ToUpper(r.Method)) {
			c.add(Advice, at, "%q is not a method that servers know", clip(r.Method))
		}
	case WebSocket:
		if r.Method != "" && !slices.Contains([]string{"GET", "WEBSOCKET_TEXT", "*"}, strings.ToUpper(r.Method)) {
			c.add(Advice, at, "a websocket endpoint sees GET and WEBSOCKET_TEXT only, %q never matches", clip(r.Method))
		}
	case ProtocolNone, TCP, GraphQL, SQL, JSONRPC, MCP:
	}
	if head, ok := strings.CutSuffix(r.Path, "/**"); ok && head != "" {
		c.lintRoot(e, r, head, at)
	}
	for part := range strings.SplitSeq(r.Path, "/") {
		if part != "**" && strings.Contains(part, "**") {
			c.add(Advice, at, "%q: ** beside other text is the same as *, and does not cross a slash", clip(r.Path))
		}
	}
	for _, q := range r.Query {
		for _, g := range q.Globs() {
			if strings.Contains(g, "*") && g != "**" && !strings.Contains(g, ".") {
				c.add(Advice, at, "query %s: in %q the * does not cross a dot; write ** for any value", q.Name, clip(g))
			}
		}
	}
}

// lintRoot warns that "/x/**" leaves out "/x", where no other rule has it.
func (c *checker) lintRoot(e *Endpoint, r *L7Rule, head, at string) {
	rules := e.Allow
	if strings.Contains(at, ".deny_rules[") {
		rules = e.Deny
	}
	for i := range rules {
		if g, err := CompileGlob(rules[i].Path, '/'); err == nil && g.Match(head, '/') {
			return
		}
	}
	c.add(Advice, at, "%q does not cover %q itself", clip(r.Path), clip(head))
}

// coversRule reports whether r surely matches whatever x matches. It knows
// equal members and "everything", not globs inside globs.
func (r *L7Rule) coversRule(x *L7Rule) bool {
	return (r.Method == x.Method || r.Method == "*" && x.Method != "") &&
		(r.Path == x.Path || coversAllPaths(r.Path) && x.Path != "") &&
		r.Command == x.Command && r.OperationType == x.OperationType && (r.OperationName == "" || r.OperationName == x.OperationName) &&
		(len(r.Fields) == 0 || slices.Equal(r.Fields, x.Fields)) &&
		(len(r.Query) == 0 || slices.EqualFunc(r.Query, x.Query, func(a, b NamedMatcher) bool { return a.Name == b.Name && a.Matcher.same(&b.Matcher) })) &&
		(r.ToolMatcher() == nil || x.ToolMatcher() != nil && r.ToolMatcher().same(x.ToolMatcher()))
}

func (m *Matcher) same(o *Matcher) bool { return m.Glob == o.Glob && slices.Equal(m.Any, o.Any) }

// lintShadow finds a plain endpoint that an equal one already grants, to the
// same programs.
func (c *checker) lintShadow(i, j int, at string) {
	r := &c.d.Rules[i]
	e := &r.Endpoints[j]
	if e.Protocol != ProtocolNone || len(c.d.Rules) > 500 {
		return
	}
	for k := 0; k <= i; k++ {
		other := &c.d.Rules[k]
		for l := range other.Endpoints {
			o := &other.Endpoints[l]
			if k == i && l >= j || o.Protocol != ProtocolNone || !strings.EqualFold(o.Host, e.Host) || len(o.AllowedIPs)+len(e.AllowedIPs) > 0 {
				continue
			}
			ports := !slices.ContainsFunc(e.Ports, func(p uint16) bool { return !slices.Contains(o.Ports, p) })
			binaries := !slices.ContainsFunc(r.Binaries, func(b Binary) bool {
				return !slices.ContainsFunc(other.Binaries, func(x Binary) bool { return x.Path == b.Path || x.Path == AnyProgram })
			})
			if ports && binaries && len(r.Binaries) > 0 {
				c.add(Advice, at, "%s already grants all of this", fmt.Sprintf("network_policies.%s.endpoints[%d]", other.Key, l))
				return
			}
		}
	}
}
