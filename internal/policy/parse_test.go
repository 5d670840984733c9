package policy_test

import (
	"strconv"
	"strings"
	"testing"

	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/policy"
)

// endpointDoc puts members into one endpoint of one rule.
func endpointDoc(members string) string {
	return "version: 1\nnetwork_policies:\n  api:\n    endpoints:\n      - {" + members + "}\n    binaries: [{path: /usr/bin/curl}]\n"
}

// TestRefused holds the documents that must fail, with what the message must
// contain: the contract's own cases first.
func TestRefused(t *testing.T) {
	base := "host: a.example.com, port: 443"
	mcp := base + ", path: /mcp, protocol: mcp"
	rest := base + ", protocol: rest"
	for _, c := range []struct{ name, text, want string }{
		{"version 2", "version: 2", "p.yaml:1:10: version: failed to decode sandbox policy fields: unsupported policy version 2"},
		{"no version", "landlock: {}", "missing field `version`"},
		{"empty", "", "missing field `version`"},
		{"unknown top key", "version: 1\nfutur: 1", "p.yaml:2:1: futur: unknown field 'futur'"},
		{"unknown nested key", "version: 1\nlandlock: {mode: x}", "p.yaml:2:12: landlock.mode: unknown field 'landlock.mode'"},
		{"unknown key of a binary", "version: 1\nnetwork_policies: {a: {binaries: [{path: /x, sha: y}]}}", "network_policies.a.binaries[0].sha'"},
		{"nearest key", "version: 1\nnetwork_polices: {}", `did you mean "network_policies"`},
		{"duplicate key", "version: 1\nversion: 1", "failed to parse sandbox policy YAML: duplicate key \"version\", first written on line 1"},
		{"duplicate key in JSON", `{"version": 1, "version": 1}`, "failed to parse sandbox policy YAML: duplicate key"},
		{"merge key", "version: 1\nlandlock: &a {}\nprocess:\n  <<: *a", "failed to parse sandbox policy YAML: merge keys"},
		{"second document", "version: 1\n---\nversion: 1", "failed to parse sandbox policy YAML: a second document"},
		{"syntax", "version: [1", "failed to parse sandbox policy YAML: "},
		{"not UTF-8", "version: 1 # \xff", "not UTF-8"},
		{"null section", "version: 1\nfilesystem_policy: null", "failed to decode sandbox policy fields: null is not allowed"},
		{"null list", "version: 1\nfilesystem_policy: {read_only: ~}", "null is not allowed"},
		{"null mcp", endpointDoc(mcp + ", mcp: null"), "null is not allowed"},
		{"landlock spelling", "version: 1\nlandlock: {compatibility: best-effort}", `did you mean "best_effort"`},
		{"port too high", endpointDoc("host: a.example.com, port: 65536"), "65536 is out of range"},
		{"port as text", endpointDoc(`host: a.example.com, port: "443"`), "is not a whole number"},
		{"port in octal", endpointDoc("host: a.example.com, port: 0443"), "not a decimal number"},
		{"tls terminate", endpointDoc(base + ", tls: terminate"), "unsupported tls value 'terminate'"},
		{"tls upper case", endpointDoc(base + ", tls: SKIP"), "unsupported tls value 'SKIP'"},
		{"enforcement", endpointDoc(rest + ", access: full, enforcement: block"), `unknown enforcement "block"`},
		{"access", endpointDoc(rest + ", access: admin"), `unknown access preset "admin"`},
		{"access and rules", endpointDoc(rest + ", access: full, rules: [{allow: {method: GET, path: /x}}]"), "rules and access are mutually exclusive"},
		{"rest without either", endpointDoc(rest), "protocol requires rules or access to define allowed traffic"},
		{"empty rules", endpointDoc(rest + ", rules: []"), "rules is empty"},
		{"all-empty allow", endpointDoc(rest + ", rules: [{allow: {}}]"), "rules would deny all traffic (no allow clause found)"},
		{"rule without allow", endpointDoc(rest + ", rules: [{}]"), "missing field `allow`"},
		{"glob beside any", endpointDoc(rest + ", rules: [{allow: {method: GET, path: /x, query: {q: {any: [a], glob: b}}}}]"), "query.q.glob'"},
		{"empty versions", endpointDoc(mcp + ", rules: [{allow: {method: ping}}], mcp: {versions: []}"), "has an empty mcp.versions list"},
		{"duplicate version", endpointDoc(mcp + ", rules: [{allow: {method: ping}}], mcp: {versions: [2025-11-25, 2025-11-25]}"), "duplicate protocol version '2025-11-25'"},
		{"unknown version", endpointDoc(mcp + `, rules: [{allow: {method: ping}}], mcp: {versions: ["2024-11-05"]}`), "unsupported MCP protocol version '2024-11-05'"},
		{"mcp on rest", endpointDoc(rest + ", access: full, mcp: {}"), "non-MCP endpoint 'a.example.com' cannot configure mcp options"},
		{"top-level wildcard", endpointDoc(`host: "*.com", port: 443`), "TLD wildcard '*.com' is not allowed"},
		{"bare wildcard", endpointDoc(`host: "**", port: 443`), "TLD wildcard"},
		{"inner double star", endpointDoc(`host: "a.**.b.com", port: 443`), "invalid host wildcard"},
		{"double star in label", endpointDoc(`host: "a**.b.com", port: 443`), "invalid host wildcard"},
		{"star in later label", endpointDoc(`host: "a.b*.com", port: 443`), "invalid host wildcard"},
		{"root user", "version: 1\nprocess: {run_as_user: root}", "run_as_user must be 'sandbox' or a numeric UID/GID in range [1, 4294967294], got 'root'"},
		{"user 0", "version: 1\nprocess: {run_as_user: \"0\"}", "got '0'"},
		{"write to /", "version: 1\nfilesystem_policy: {read_write: [/]}", "read-write path is overly broad: /"},
		{"write to / in disguise", "version: 1\nfilesystem_policy: {read_write: [//./]}", "read-write path is overly broad"},
		{"dots", "version: 1\nfilesystem_policy: {read_only: [/a/../b]}", "path contains '..' traversal component: /a/../b"},
		{"relative", "version: 1\nfilesystem_policy: {read_only: [a]}", "path must be absolute (start with '/'): a"},
		{"long path", "version: 1\nfilesystem_policy: {read_only: [/" + strings.Repeat("a", 4096) + "]}", "path exceeds maximum length (4097 > 4096)"},
		{"many paths", "version: 1\nfilesystem_policy: {read_only: [" + strings.Repeat("/a, ", 256) + "/a]}", "too many filesystem paths (257 > 256)"},
		{"no host", endpointDoc("port: 443"), "endpoint host must not be empty unless allowed_ips"},
		{"no host for tcp", endpointDoc("port: 443, protocol: tcp, allowed_ips: [10.0.0.0/8]"), "endpoint host must not be empty"},
		{"no port", endpointDoc("host: a.example.com"), "must declare at least one port"},
		{"address for tcp", endpointDoc("host: 10.0.0.1, port: 22, protocol: tcp"), "needs a DNS name"},
		{"tcp with L7 members", endpointDoc(base + ", protocol: tcp, path: /x, enforcement: enforce, access: full"), "L7-only fields: enforcement, path"},
		{"tcp with access", endpointDoc(base + ", protocol: tcp, access: full"), "protocol tcp does not support access, rules, or deny_rules"},
		{"unknown protocol", endpointDoc(base + ", protocol: grpc"), "unknown protocol 'grpc' (expected tcp, rest, websocket, graphql, sql, json-rpc, or mcp)"},
		{"endpoint path", endpointDoc(rest + ", access: full, path: v1"), "must start with / or be **"},
		{"deny without protocol", endpointDoc(base + ", deny_rules: [{method: GET, path: /x}]"), "deny_rules require protocol"},
		{"deny without base", endpointDoc(rest + ", deny_rules: [{method: GET, path: /x}]"), "deny_rules require rules or access"},
		{"json-rpc glob", endpointDoc(base + ", protocol: json-rpc, rules: [{allow: {method: \"reports.*\"}}]"), "json-rpc methods are exact"},
		{"json-rpc preset", endpointDoc(base + ", protocol: json-rpc, access: full"), "protocol json-rpc does not support access presets"},
		{"mcp without rules", endpointDoc(mcp), "protocol mcp requires rules when mcp.allow_all_known_mcp_methods is false"},
		{"mcp bare star", endpointDoc(mcp + ", rules: [{allow: {method: \"*\"}}]"), `the bare "*" is not allowed`},
		{"mcp glob elsewhere", endpointDoc(mcp + ", rules: [{allow: {method: \"resources/*\"}}]"), "only in the tools/ family"},
		{"mcp broad beside named", endpointDoc(mcp + ", rules: [{allow: {method: tools/call}}, {allow: {method: tools/call, tool: x}}]"), "covers every tools/call"},
		{"mcp loose wildcard", endpointDoc(mcp + ", mcp: {strict_tool_names: false}, rules: [{allow: {method: tools/call, tool: \"x*\"}}]"), "need mcp.strict_tool_names"},
		{"mcp params", endpointDoc(mcp + ", rules: [{allow: {method: tools/call, params: {arguments: {q: x}}}}]"), "only params.name can be matched"},
		{"tool on rest", endpointDoc(rest + ", rules: [{allow: {method: GET, path: /x, tool: y}}]"), "tool and params are for mcp endpoints only"},
		{"graphql type", endpointDoc(base + ", protocol: graphql, rules: [{allow: {operation_type: read}}]"), "operation_type must be query, mutation or subscription"},
		{"websocket text beside graphql", endpointDoc(base + ", protocol: websocket, rules: [{allow: {operation_type: query}}, {allow: {method: WEBSOCKET_TEXT, path: /x}}]"), "WEBSOCKET_TEXT rule would let"},
		{"websocket rewrite on rest", endpointDoc(rest + ", access: full, websocket_credential_rewrite: true"), "for websocket endpoints only"},
		{"body rewrite on websocket", endpointDoc(base + ", protocol: websocket, access: full, request_body_credential_rewrite: true"), "for rest endpoints only"},
		{"signing and body rewrite", endpointDoc(rest + ", access: full, request_body_credential_rewrite: true, credential_signing: sigv4, signing_service: s3"), "mutually exclusive"},
		{"signing without service", endpointDoc(rest + ", access: full, credential_signing: sigv4"), "requires signing_service"},
		{"sql enforced", endpointDoc(base + ", protocol: sql, rules: [{allow: {command: select}}], enforcement: enforce"), "use enforcement: audit"},
		{"bool as text", endpointDoc(rest + `, access: full, allow_encoded_slash: "true"`), "expected true or false"},
		{"list as method", endpointDoc(rest + ", rules: [{allow: {method: [GET], path: /x}}]"), "expected text"},
		{"number as text", endpointDoc(rest + ", rules: [{allow: {method: GET, path: /x, query: {v: 1}}}]"), "write it in quotes"},
		{"broken glob", endpointDoc(rest + `, rules: [{allow: {method: GET, path: "/x[a"}}]`), "invalid glob"},
		{"rest rule without path", endpointDoc(rest + ", rules: [{allow: {method: GET}}]"), "would never match"},
		{"allowed_ips", endpointDoc(base + ", allowed_ips: [10.0.0.0/40]"), "neither an address nor a prefix"},
		{"host with scheme", endpointDoc(`host: "https://a.example.com/", port: 443`), "write the host only"},
		{"host with port", endpointDoc(`host: "a.example.com:443", port: 443`), "neither a name nor an address"},
		{"explicit tag", "version: 1\nprocess: {run_as_user: !!str 7}", "explicit tag"},
		{"middleware without endpoints", "version: 1\nnetwork_middlewares: {m: {middleware: openshell/regex}}", "needs at least one host pattern"},
		{"middleware port", "version: 1\nnetwork_middlewares: {m: {middleware: x, endpoints: {include: [\"a.example.com:443\"]}}}", "may not contain a port"},
		{"equal orders", "version: 1\nnetwork_middlewares: {m: {middleware: x, endpoints: {include: [a.b]}}, n: {middleware: x, endpoints: {include: [a.b]}}}", "each needs its own"},
		{"middleware over tls skip", endpointDoc(base+", tls: skip") + "network_middlewares: {m: {middleware: x, endpoints: {include: [\"*.example.com\"]}}}", "tls: skip cannot be inspected"},
		{"clipboard", "version: 1\nui: {clipboard: read}", "needs allow_graphical_ui"},
		{"too deep", "version: 1\nx: " + strings.Repeat("[", 70) + strings.Repeat("]", 70), "nested more than 64 levels"},
		{"too deep in JSON", `{"version": 1, "x": ` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + "}", "nested more than 64 levels"},
		{"too many aliases", "version: 1\nx: &a b\ny: [" + strings.Repeat("*a, ", 6) + "*a]", "too many aliases"},
		{"too large", "version: 1 #" + strings.Repeat("x", 4<<20), "policy exceeds the 4194304-byte input limit"},
		{"too many items", "version: 1\nx: [" + strings.Repeat("a,", 10001) + "]", "more than 10000 items"},
		{"too many nodes", "version: 1\nx: [" + strings.Repeat("a,", 500_000) + "]", "more than 100000 nodes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := policy.Parse("p.yaml", []byte(c.text))
			if err == nil || d != nil {
				t.Fatal("it was accepted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error:\n%v\nlacks: %s", err, c.want)
			}
			if !strings.HasPrefix(err.Error(), "p.yaml") || fault.KindOf(err) != fault.InvalidArgument {
				t.Errorf("no place, or of kind %v: %v", fault.KindOf(err), err)
			}
		})
	}
}

func TestAllViolationsAreReportedTogether(t *testing.T) {
	_, err := policy.Parse("p.yaml", []byte(`version: 3
landlock: {compatibility: hard}
network_policies:
  a:
    endpoints:
      - {host: "*.com", port: 0, protocol: rest, colour: red}
      - {host: a.example.com, port: 443, protocol: mcp, access: full}
`))
	if err == nil {
		t.Fatal("it was accepted")
	}
	for _, want := range []string{
		"p.yaml:1:10: version:", "p.yaml:2:27: landlock.compatibility:", "p.yaml:6:16: network_policies.a.endpoints[0].host: ",
		"p.yaml:6:31: network_policies.a.endpoints[0].port: ", "p.yaml:6:50: network_policies.a.endpoints[0].colour: ",
		"protocol requires rules or access", "p.yaml:7:", "protocol mcp does not support access presets", "protocol mcp requires rules",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
}

// TestAccepted holds valid documents that are easily refused by accident.
func TestAccepted(t *testing.T) {
	for name, text := range map[string]string{
		"least":             "version: 1",
		"JSON":              "{\"version\": 1,\n\t\"network_policies\": {\"a\": {\"endpoints\": [{\"host\": \"a.example.com\", \"port\": 443}]}}}",
		"flow YAML":         "{version: 1}",
		"byte order mark":   "\ufeffversion: 1",
		"aliases in bounds": "version: 1\nnetwork_policies:\n  a: {binaries: &b [{path: /x}]}\n  b: {binaries: *b}",
		"numeric user":      "version: 1\nprocess: {run_as_user: 1000, run_as_group: \"1000\"}",
		"unquoted date":     endpointDoc("host: a.example.com, port: 443, protocol: mcp, mcp: {versions: [2025-03-26], allow_all_known_mcp_methods: true}"),
		"scalar binary":     "version: 1\nnetwork_policies: {a: {binaries: [/usr/bin/curl]}}",
		"port and ports":    endpointDoc("host: a.example.com, port: 80, ports: [443]"),
		"blocked list":      endpointDoc("host: a.example.com, port: 443, allowed_ips: [127.0.0.0/8]"),
		"address pattern":   endpointDoc(`host: "10.*.*.*", port: 443`),
		"skip and allow":    endpointDoc("host: a.example.com, port: 443, tls: skip") + "network_middlewares: {m: {middleware: x, on_uninspectable: allow, config: {n: null, k: [1.5, true]}, endpoints: {include: [\"*.example.com\"]}}}",
		"skip and exclude":  endpointDoc("host: a.example.com, port: 443, tls: skip") + "network_middlewares: {m: {middleware: x, endpoints: {include: [\"*.example.com\"], exclude: [a.example.com]}}}",
		"ui":                "version: 1\nui: {allow_graphical_ui: true, clipboard: all}",
		"any as a name":     endpointDoc("host: a.example.com, port: 443, protocol: rest, rules: [{allow: {method: GET, path: /x, query: {any: x, none: {any: [y]}}}}]"),
	} {
		t.Run(name, func(t *testing.T) {
			d, err := policy.Parse("p.yaml", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, d)
		})
	}
}

// roundTrip checks that both canonical forms mean the same document.
func roundTrip(t testing.TB, d *policy.Document) {
	t.Helper()
	for _, text := range [][]byte{policy.Canonical(d), policy.JSON(d)} {
		again, err := policy.Parse("canonical", text)
		if err != nil {
			t.Fatalf("the canonical form is refused: %v\n%s", err, text)
		}
		if got, want := string(policy.Canonical(again)), string(policy.Canonical(d)); got != want {
			t.Fatalf("not a fixpoint:\n%s\nthen\n%s", want, got)
		}
		if policy.Hash(again) != policy.Hash(d) {
			t.Fatal("the hash changed")
		}
	}
}

func TestReservedKeys(t *testing.T) {
	d, err := policy.Parse("p.yaml", []byte("version: 1\nnetwork_policies:\n  _provider_x: {}\n  mine: {}\n"))
	if err != nil {
		t.Fatal(err)
	}
	err = policy.NewError(d, policy.ReservedKeys(d))
	if err == nil || !strings.HasPrefix(err.Error(), "p.yaml:3:3: ") || !strings.Contains(err.Error(), "reserved '_provider_' prefix for provider composition") || strings.Contains(err.Error(), "mine") {
		t.Errorf("error %v", err)
	}
}

// TestMessagesAreHarmless: a document may come from an agent, and what is
// wrong with it is read on a terminal.
func TestMessagesAreHarmless(t *testing.T) {
	_, err := policy.Parse("p\x1b.yaml", []byte(`version: 1
"k\e[2J": 1
process: {run_as_user: "\e]0;x\a"}
network_policies:
  "a\nb\u202e": {endpoints: [{host: "\e[1m", port: 1, protocol: "\r", tls: "\b"}], binaries: ["/\x00"]}
filesystem_policy: {read_only: ["\e"]}
`))
	if err == nil {
		t.Fatal("it was accepted")
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		for _, r := range line {
			if !strconv.IsPrint(r) {
				t.Errorf("%q holds %q", line, r)
			}
		}
	}
}
