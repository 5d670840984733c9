package policy_test

import (
	"reflect"
	"testing"

	"openshell.dev/openshell/internal/policy"
)

// TestHashSeesEveryField sets every exported field of every part of a
// document, one at a time, and wants another hash and another canonical form
// each time. A field added and forgotten in the writer fails here.
func TestHashSeesEveryField(t *testing.T) {
	fresh := func() *policy.Document {
		m := policy.Matcher{Glob: "g"}
		return &policy.Document{
			Filesystem: &policy.Filesystem{}, Landlock: &policy.Landlock{}, Process: &policy.Process{RunAsUser: "7"}, UI: &policy.UI{},
			Rules: []policy.Rule{{Key: "k", Endpoints: []policy.Endpoint{{
				Host: "h", Ports: []uint16{1}, Protocol: policy.MCP, MCP: &policy.MCPOptions{},
				Allow:             []policy.L7Rule{{Method: "m", Query: []policy.NamedMatcher{{Name: "n", Matcher: m}}}},
				RegisteredQueries: []policy.RegisteredQuery{{ID: "i"}},
			}}, Binaries: []policy.Binary{{Path: "/b"}}}},
			Middlewares: []policy.Middleware{{Key: "k"}},
		}
	}
	// Not part of what a document says.
	skip := map[string]bool{"Source": true, "Pos": true}
	// Provenance is hashed and never written.
	hidden := map[string]bool{"AdvisorProposed": true, "ProviderCredentialed": true, "TokenGrantOwner": true}
	base, text := policy.Hash(fresh()), string(policy.Canonical(fresh()))
	fields := 0
	var walk func(at func(*policy.Document) reflect.Value, typ reflect.Type, path string)
	walk = func(at func(*policy.Document) reflect.Value, typ reflect.Type, path string) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			if !f.IsExported() || skip[f.Name] {
				continue
			}
			field := func(d *policy.Document) reflect.Value { return at(d).Field(i) }
			name := path + "." + f.Name
			inner := f.Type
			if inner.Kind() == reflect.Pointer && inner.Elem().Kind() == reflect.Struct && f.Name != "Tool" {
				walk(func(d *policy.Document) reflect.Value { return field(d).Elem() }, inner.Elem(), name)
				continue
			}
			if inner.Kind() == reflect.Struct {
				walk(field, inner, name)
				continue
			}
			if inner.Kind() == reflect.Slice && inner.Elem().Kind() == reflect.Struct && field(fresh()).Len() > 0 {
				walk(func(d *policy.Document) reflect.Value { return field(d).Index(0) }, inner.Elem(), name)
			}
			d := fresh()
			change(t, field(d), name)
			fields++
			if policy.Hash(d) == base {
				t.Errorf("the hash does not see %s", name)
			}
			if (string(policy.Canonical(d)) == text) != hidden[f.Name] {
				t.Errorf("%s: the canonical form is the same: %v", name, !hidden[f.Name])
			}
		}
	}
	walk(func(d *policy.Document) reflect.Value { return reflect.ValueOf(d).Elem() }, reflect.TypeFor[policy.Document](), "Document")
	if fields < 60 {
		t.Errorf("only %d fields were tried", fields)
	}
}

// change gives a value another content.
func change(t *testing.T, v reflect.Value, name string) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(v.Uint() + 1)
		if name == "Document.Rules.Endpoints.Protocol" {
			v.SetUint(uint64(policy.REST))
		}
	case reflect.Int32:
		v.SetInt(v.Int() + 1)
	case reflect.Slice:
		one := reflect.New(v.Type().Elem()).Elem()
		if one.Kind() == reflect.Struct {
			for i := range one.NumField() {
				if f := one.Field(i); f.Kind() == reflect.String {
					f.SetString("x")
				}
			}
		} else {
			change(t, one, name)
		}
		if name == "Document.Rules.Endpoints.Allow.Params" {
			one.FieldByName("Name").SetString("name")
		}
		v.Set(reflect.Append(v, one))
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]any{"x": true}))
	case reflect.Pointer:
		v.Set(reflect.ValueOf(&policy.Matcher{Glob: "x"}))
	default:
		t.Fatalf("%s is of kind %s, teach this test", name, v.Kind())
	}
}
