// Package policyproto translates a policy between the wire and the document.
//
// It owns the correspondence of the message SandboxPolicy and the policy
// document, nothing of either's meaning: what comes off the wire is written
// as a document and read by the one strict parser, so that the gateway, the
// enforcer and the command line cannot disagree. Pure; the edges use it.
package policyproto

import (
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"openshell.dev/openshell/api/gen/sandboxv1"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/policy"
)

// Name is the source in positions of a policy that came over the wire.
const Name = "policy"

// Document reads a wire policy through the parser. A nil policy is a nil
// document.
func Document(p *sandboxv1.SandboxPolicy) (*policy.Document, error) {
	if p == nil {
		return nil, nil
	}
	body, err := JSON(p)
	if err != nil {
		return nil, err
	}
	return policy.Parse(Name, body)
}

// JSON writes a wire policy as a policy document without judging it.
func JSON(p *sandboxv1.SandboxPolicy) ([]byte, error) {
	tree, err := message(p.ProtoReflect())
	if err != nil {
		return nil, err
	}
	if v, _ := tree["version"].(uint32); v == 0 {
		tree["version"] = policy.Version
	}
	rename(tree, "filesystem", "filesystem_policy")
	rules, _ := tree["network_policies"].(map[string]any)
	for _, r := range rules {
		endpoints, _ := r.(map[string]any)["endpoints"].([]any)
		for _, e := range endpoints {
			endpoint(e.(map[string]any))
		}
	}
	return json.Marshal(tree)
}

// endpoint brings one endpoint into the document's shape.
func endpoint(e map[string]any) {
	for _, ours := range []string{"advisor_proposed", "provider_credentialed", "token_grant_owner"} {
		delete(e, ours) // written by the gateway, never by a person
	}
	if _, list := e["ports"]; list {
		delete(e, "port")
	}
	if n, ok := e["json_rpc_max_body_bytes"]; ok {
		delete(e, "json_rpc_max_body_bytes")
		inner := "json_rpc"
		if e["protocol"] == "mcp" {
			inner = "mcp"
		}
		m, _ := e[inner].(map[string]any)
		if m == nil {
			m = map[string]any{}
		}
		m["max_body_bytes"] = n
		e[inner] = m
	}
	for _, list := range []string{"rules", "deny_rules"} {
		rules, _ := e[list].([]any)
		for _, r := range rules {
			rule := r.(map[string]any)
			if a, ok := rule["allow"].(map[string]any); ok {
				rule = a
			}
			for _, group := range []string{"query", "params"} {
				matchers, _ := rule[group].(map[string]any)
				for name, m := range matchers {
					if glob, ok := m.(map[string]any)["glob"]; ok {
						matchers[name] = glob
					}
				}
			}
		}
	}
}

func rename(m map[string]any, from, to string) {
	if v, ok := m[from]; ok {
		delete(m, from)
		m[to] = v
	}
}

// message turns the populated fields into a tree under their proto names. A
// section that is present stays present when it is empty.
func message(m protoreflect.Message) (map[string]any, error) {
	if len(m.GetUnknown()) > 0 {
		return nil, fault.New(fault.InvalidArgument, "%s has fields this gateway does not know", m.Descriptor().Name()).On("policy")
	}
	out := map[string]any{}
	var failed error
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		var tree any
		switch {
		case f.IsMap():
			object := map[string]any{}
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				object[k.String()], failed = value(f.MapValue(), v)
				return failed == nil
			})
			tree = object
		case f.IsList():
			list := make([]any, v.List().Len())
			for i := range list {
				if list[i], failed = value(f, v.List().Get(i)); failed != nil {
					return false
				}
			}
			tree = list
		default:
			tree, failed = value(f, v)
		}
		out[string(f.Name())] = tree
		return failed == nil
	})
	return out, failed
}

func value(f protoreflect.FieldDescriptor, v protoreflect.Value) (any, error) {
	switch f.Kind() {
	case protoreflect.MessageKind:
		if s, ok := v.Message().Interface().(interface{ AsMap() map[string]any }); ok {
			return s.AsMap(), nil
		}
		return message(v.Message())
	case protoreflect.EnumKind:
		word := f.Enum().Values().ByNumber(v.Enum())
		if word == nil {
			return nil, fault.New(fault.InvalidArgument, "%s: unknown value %d", f.Name(), v.Enum()).On("policy")
		}
		return enumWord(f.Enum(), word), nil
	case protoreflect.BytesKind, protoreflect.FloatKind, protoreflect.DoubleKind:
		return nil, fmt.Errorf("field %s of kind %s in a policy", f.FullName(), f.Kind())
	}
	return v.Interface(), nil
}

// enumWord turns NETWORK_ACCESS_PRESET_READ_ONLY into "read-only".
func enumWord(e protoreflect.EnumDescriptor, v protoreflect.EnumValueDescriptor) string {
	zero := string(e.Values().ByNumber(0).Name())
	prefix := strings.TrimSuffix(zero, "UNSPECIFIED")
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix)), "_", "-")
}
