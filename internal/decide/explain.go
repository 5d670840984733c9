package decide

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/policy"
)

// Explain words the reason of a verdict that ix gave for f, as the contract's
// clients know it. What a sandbox chose (names, paths) is quoted where it is
// not plain text.
func (ix *Index) Explain(f Flow, v Verdict) string {
	where := show(f.Host) + ":" + strconv.Itoa(int(f.Port))
	switch v.Reason {
	case Matched:
		return fmt.Sprintf("%s is allowed by policy '%s'%s", where, show(v.Rule.Key), ix.place(v.Rule))
	case HostNotCanonical:
		return fmt.Sprintf("%s is not a host name or address in canonical form", where)
	case NoEndpoint:
		return fmt.Sprintf("endpoint %s is not allowed by any policy", where)
	case PortNotAllowed:
		text := fmt.Sprintf("endpoint %s is not allowed by any policy", where)
		if e := ix.endpoint(v.Rule); e != nil {
			text += fmt.Sprintf("; policy '%s' allows %s on %s only", show(v.Rule.Key), show(e.Host), ports(e.Ports))
		}
		return text
	case ProgramUnknown:
		return fmt.Sprintf("no process could be found behind the connection to %s", where)
	case ProgramNotAllowed:
		return ix.programs(f, v)
	}
	return "network connections not allowed by policy"
}

// programs names each rule that covers the endpoint and not the program.
func (ix *Index) programs(f Flow, v Verdict) string {
	if v.Holder >= len(f.Programs) || len(f.Programs[v.Holder]) == 0 {
		return "network connections not allowed by policy"
	}
	chain := f.Programs[v.Holder]
	ancestors := make([]string, 0, len(chain)-1)
	for _, p := range chain[1:min(len(chain), maxAncestors)] {
		ancestors = append(ancestors, show(p.Path))
	}
	var kept [maxMissed]*endpoint
	search := search{port: f.Port, chain: chain, missed: &kept}
	ix.find(&search, f.Host)
	missed := kept[:search.nMissed]
	slices.SortFunc(missed, func(a, b *endpoint) int { return a.order - b.order })
	var parts []string
	for _, e := range missed {
		part := fmt.Sprintf("binary '%s' not allowed in policy '%s' (ancestors: [%s])", show(chain[0].Path), show(e.rule.key), strings.Join(ancestors, ", "))
		if !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		return "network connections not allowed by policy"
	}
	return strings.Join(parts, "; ")
}

func (ix *Index) endpoint(r RuleRef) *policy.Endpoint {
	if ix == nil {
		return nil
	}
	rule := ix.rules[r.Key]
	if rule == nil || r.Endpoint < 0 || r.Endpoint >= len(rule.doc.Endpoints) {
		return nil
	}
	return &rule.doc.Endpoints[r.Endpoint]
}

// place is " (file:line:column)" of a rule, or nothing.
func (ix *Index) place(r RuleRef) string {
	if ix == nil || !r.Pos.Known() {
		return ""
	}
	return " (" + r.Pos.In(ix.doc.Source) + ")"
}

func ports(list []uint16) string {
	words := make([]string, len(list))
	for i, p := range list {
		words[i] = strconv.Itoa(int(p))
	}
	if len(words) == 1 {
		return "port " + words[0]
	}
	return "ports " + strings.Join(words, ", ")
}

// Change is the narrowest change of the policy that would allow a denied flow.
// The zero value: there is none.
type Change struct {
	Text   string // one sentence
	YAML   string // what to add, with where in a comment
	Line   string // the same as one rule to paste below network_policies
	Run    string // the command line of `run`
	Update string // the command line for a sandbox; NAME stands for it
}

// Change returns the narrowest change that would allow f. It is empty for an
// allowed flow, and for one that no policy could allow.
func (ix *Index) Change(f Flow, v Verdict) Change {
	if ix == nil || v.Allow || !canonical(f.Host) || f.Port == 0 {
		return Change{}
	}
	if v.Holder >= len(f.Programs) || len(f.Programs[v.Holder]) == 0 {
		return Change{}
	}
	program := f.Programs[v.Holder][0].Path
	if program == "" || program[0] != '/' || strings.ContainsAny(program, "*?[]{}\\") {
		return Change{} // unknown, or it would be read as a pattern
	}
	port := strconv.Itoa(int(f.Port))
	target := f.Host + ":" + port
	if strings.Contains(f.Host, ":") {
		target = "[" + f.Host + "]:" + port
	}
	key := policy.AllowKey(f.Host, []uint16{f.Port})
	for n := 2; ix.rules[key] != nil; n++ {
		key = policy.AllowKey(f.Host, []uint16{f.Port}) + "_" + strconv.Itoa(n)
	}
	c := Change{
		Line: fmt.Sprintf("%s: {endpoints: [{host: %s, port: %s}], binaries: [{path: %s}]}",
			key, strconv.Quote(f.Host), port, yamlString(program)),
		Run: brand.Name + " run --allow " + target + " -- ...",
	}
	if !strings.Contains(f.Host, ":") { // the contract splits at every colon
		c.Update = brand.Name + " policy update NAME --add-endpoint " + target + " --binary " + shellWord(program)
	}
	e := ix.endpoint(v.Rule)
	switch {
	case v.Reason == ProgramNotAllowed && e != nil:
		c.Text = fmt.Sprintf("add the program %s to policy %s%s", show(program), show(v.Rule.Key), ix.place(v.Rule))
		c.YAML = fmt.Sprintf("# below network_policies.%s.binaries\n- path: %s\n", show(v.Rule.Key), yamlString(program))
	case v.Reason == PortNotAllowed && e != nil:
		c.Text = fmt.Sprintf("add port %s to endpoint %s of policy %s%s", port, show(e.Host), show(v.Rule.Key), ix.place(v.Rule))
		list := append(append([]uint16{}, e.Ports...), f.Port)
		c.YAML = fmt.Sprintf("# instead of port in network_policies.%s.endpoints[%d]\nports: [%s]\n", show(v.Rule.Key), v.Rule.Endpoint, strings.TrimPrefix(strings.TrimPrefix(ports(list), "ports "), "port "))
	default:
		c.Text = fmt.Sprintf("add a policy that allows %s to reach %s", show(program), target)
		c.YAML = string(policy.Canonical(&policy.Document{Rules: []policy.Rule{{
			Key:       key,
			Endpoints: []policy.Endpoint{{Host: f.Host, Ports: []uint16{f.Port}}},
			Binaries:  []policy.Binary{{Path: program}},
		}}}))
	}
	return c
}

// maxAncestors bounds the ancestors that a text names.
const maxAncestors = 8

// maxShown bounds what a sandbox chose in a text.
const maxShown = 256

// show returns s if it is plain text, else quoted, never with a control
// character or a quote of its own, and never long.
func show(s string) string {
	cut := ""
	if len(s) > maxShown {
		s, cut = s[:maxShown], "..."
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '\'' || c == '"' || c == '`' || c == '\\' {
			return strconv.QuoteToASCII(s) + cut
		}
	}
	return s + cut
}

// yamlString quotes for flow style.
func yamlString(s string) string { return policy.QuoteString(s) }

// shellWord quotes for a POSIX shell where that is needed.
func shellWord(s string) string {
	plain := s != ""
	for i := range len(s) {
		c := s[i]
		plain = plain && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("/._-+:@%,=", c) >= 0)
	}
	if plain {
		return s
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f { // only $'...' can hold it
			quoted := strconv.QuoteToASCII(s)
			return "$'" + strings.ReplaceAll(quoted[1:len(quoted)-1], "'", `\'`) + "'"
		}
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
