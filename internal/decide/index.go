package decide

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"openshell.dev/openshell/internal/policy"
)

// Index is a compiled policy. It never changes and may be used by many
// goroutines. A nil Index denies everything.
type Index struct {
	doc            *policy.Document
	exact          map[string]*site // by canonical host
	wild           *node            // patterns, by labels from the right
	hostless       *site            // endpoints that name addresses only
	rules          map[string]*rule
	all            []*endpoint // by order
	names          []string
	ignorePrograms bool
}

// endpoint is one compiled endpoint of a rule.
type endpoint struct {
	order   int // in ascending order of rule key and index
	rule    *rule
	index   int
	exact   bool // the host is one name or address, and no advisor's idea
	doc     *policy.Endpoint
	kind    Kind
	listed  bool           // allowed_ips is written
	allowed []netip.Prefix // of allowed_ips; nil beside listed: none can hold

	inspection *inspection // nil: requests are not read
}

type rule struct {
	key      string
	doc      *policy.Rule
	programs programs
}

// site is the endpoints of one host or pattern, by port.
type site struct{ ports []portEntry }

type portEntry struct {
	port      uint16
	endpoints []*endpoint
}

// node is one label of the pattern tree, read from the right.
type node struct {
	children map[string]*node
	star     *node     // "*" as a label that is not the first
	one      *site     // "*" as the first label
	deep     *site     // "**" as the first label
	here     *site     // this label is the first
	partial  []partial // first labels with "*" inside
}

type partial struct {
	pattern string
	site    *site
}

func build(d *policy.Document, opts Options) (*Index, error) {
	ix := &Index{doc: d, exact: map[string]*site{}, wild: &node{}, hostless: &site{}, rules: map[string]*rule{}, ignorePrograms: opts.IgnorePrograms}
	order := 0
	for i := range d.Rules {
		r := &rule{key: d.Rules[i].Key, doc: &d.Rules[i]}
		if err := r.programs.compile(r.doc.Binaries, opts.Targets); err != nil {
			return nil, fmt.Errorf("compile network_policies.%s: %w", r.key, err)
		}
		ix.rules[r.key] = r
		for j := range r.doc.Endpoints {
			e := &endpoint{order: order, rule: r, index: j, doc: &r.doc.Endpoints[j]}
			order++
			ix.all = append(ix.all, e)
			if err := ix.insert(e); err != nil {
				return nil, fmt.Errorf("compile network_policies.%s.endpoints[%d]: %w", r.key, j, err)
			}
		}
	}
	for host := range ix.exact {
		if _, err := netip.ParseAddr(host); err != nil {
			ix.names = append(ix.names, host)
		}
	}
	slices.Sort(ix.names)
	return ix, nil
}

func (ix *Index) insert(e *endpoint) error {
	e.kind = Relay
	switch {
	case e.doc.Protocol == policy.TCP || e.doc.TLS == policy.TLSSkip:
		e.kind = Raw
	case e.doc.Inspected():
		e.kind = Inspect
		in, err := compileInspection(e.doc)
		if err != nil {
			return err
		}
		e.inspection = in
	}
	e.listed = len(e.doc.AllowedIPs) > 0
	for _, s := range e.doc.AllowedIPs {
		p, err := policy.ParseAllowedIP(s)
		if err != nil {
			return fmt.Errorf("allowed_ips %q: %w", s, err)
		}
		if policy.ListsForbidden(p) { // the contract: then every connection fails
			e.allowed = nil
			break
		}
		e.allowed = append(e.allowed, p)
	}
	if e.doc.Host == "" {
		ix.hostless.add(e)
		return nil
	}
	host, err := policy.ParseHost(e.doc.Host)
	if err != nil {
		return fmt.Errorf("host %q: %w", e.doc.Host, err)
	}
	e.exact = host.Exact() && !e.doc.AdvisorProposed
	if host.Exact() {
		s := ix.exact[host.String()]
		if s == nil {
			s = &site{}
			ix.exact[host.String()] = s
		}
		s.add(e)
		return nil
	}
	ix.wild.insert(host.Labels(), e)
	return nil
}

func (n *node) insert(labels []string, e *endpoint) {
	last := labels[len(labels)-1]
	if len(labels) == 1 {
		switch {
		case last == "**":
			n.deep = n.deep.with(e)
		case last == "*":
			n.one = n.one.with(e)
		case strings.Contains(last, "*"):
			for i := range n.partial {
				if n.partial[i].pattern == last {
					n.partial[i].site.add(e)
					return
				}
			}
			n.partial = append(n.partial, partial{last, (*site)(nil).with(e)})
		default:
			c := n.child(last)
			c.here = c.here.with(e)
		}
		return
	}
	if last == "*" {
		if n.star == nil {
			n.star = &node{}
		}
		n.star.insert(labels[:len(labels)-1], e)
		return
	}
	n.child(last).insert(labels[:len(labels)-1], e)
}

func (n *node) child(label string) *node {
	c := n.children[label]
	if c == nil {
		c = &node{}
		if n.children == nil {
			n.children = map[string]*node{}
		}
		n.children[label] = c
	}
	return c
}

func (s *site) with(e *endpoint) *site {
	if s == nil {
		s = &site{}
	}
	s.add(e)
	return s
}

func (s *site) add(e *endpoint) {
	for _, p := range e.doc.Ports {
		i, found := slices.BinarySearchFunc(s.ports, p, func(x portEntry, p uint16) int { return int(x.port) - int(p) })
		if !found {
			s.ports = slices.Insert(s.ports, i, portEntry{port: p})
		}
		if list := s.ports[i].endpoints; len(list) == 0 || list[len(list)-1] != e {
			s.ports[i].endpoints = append(list, e)
		}
	}
}

// at returns the endpoints on a port.
func (s *site) at(port uint16) []*endpoint {
	low, high := 0, len(s.ports)
	for low < high {
		mid := (low + high) / 2
		switch p := s.ports[mid].port; {
		case p == port:
			return s.ports[mid].endpoints
		case p < port:
			low = mid + 1
		default:
			high = mid
		}
	}
	return nil
}

// Names returns every name (no pattern, no address) that an endpoint names,
// in ascending order. The caller must not change it.
func (ix *Index) Names() []string {
	if ix == nil {
		return nil
	}
	return ix.names
}

// MatchesHost reports whether some endpoint names host or has a pattern that
// covers it: only such names mean anything to the policy's resolver. Endpoints
// without a host do not count, see Hostless.
func (ix *Index) MatchesHost(host string) bool {
	if ix == nil || !canonical(host) {
		return false
	}
	if ix.exact[host] != nil {
		return true
	}
	s := search{nameOnly: true}
	ix.wild.find(&s, host)
	return s.named
}

// Hostless reports whether some endpoint allows any name whose addresses are
// in a list.
func (ix *Index) Hostless() bool { return ix != nil && len(ix.hostless.ports) > 0 }

// Document returns the document the index was made of. The caller must not
// change it.
func (ix *Index) Document() *policy.Document { return ix.doc }

// canonical reports whether host may be looked up at all: lower case, no
// empty label, nothing that a resolver could read in two ways.
func canonical(host string) bool {
	if host == "" || len(host) > 253 {
		return false
	}
	prev := byte('.')
	colons := false
	for i := range len(host) {
		c := host[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
		case c == '.':
			if prev == '.' {
				return false
			}
		case c == ':':
			colons = true
		default:
			return false
		}
		prev = c
	}
	if prev == '.' {
		return false
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	if colons || last[0] >= '0' && last[0] <= '9' {
		if addr, err := netip.ParseAddr(host); err == nil {
			return !colons || addr.Zone() == ""
		}
		return !colons && !numeric(last)
	}
	return true
}

// numeric reports whether old resolvers read a last label as a number.
func numeric(label string) bool {
	if len(label) > 1 && label[0] == '0' && label[1] == 'x' {
		for i := 2; i < len(label); i++ {
			if c := label[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
		return true
	}
	for i := range len(label) {
		if label[i] < '0' || label[i] > '9' {
			return false
		}
	}
	return true
}
