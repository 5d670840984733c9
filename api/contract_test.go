// Package api_test compares the generated descriptors with the table of the
// released contract, fact by fact and in both directions.
package api_test

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"openshell.dev/openshell/api/gen/optionsv1"

	_ "openshell.dev/openshell/api/gen/computev1"
	_ "openshell.dev/openshell/api/gen/credentialsv1"
	_ "openshell.dev/openshell/api/gen/datamodelv1"
	_ "openshell.dev/openshell/api/gen/extensionv1"
	_ "openshell.dev/openshell/api/gen/gatewayinterceptorv1"
	_ "openshell.dev/openshell/api/gen/middlewarev1"
	_ "openshell.dev/openshell/api/gen/openshellv1"
	_ "openshell.dev/openshell/api/gen/sandboxv1"
)

// contractPrefix is the proto name space that the table describes whole.
const contractPrefix = "openshell."

func TestDescriptorsAreTheContract(t *testing.T) {
	want := readTable(t)
	if len(want) < 2000 {
		t.Fatalf("table has %d facts, it cannot be whole", len(want))
	}
	var files []protoreflect.FileDescriptor
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(string(file.Package()), contractPrefix) {
			files = append(files, file)
		}
		return true
	})
	for _, difference := range compare(want, readDescriptors(files...)) {
		t.Error(difference)
	}
}

// TestEveryKindOfChangeIsSeen changes a copy of a descriptor in one small way
// and expects the facts to differ: a comparison that cannot fail protects nothing.
func TestEveryKindOfChangeIsSeen(t *testing.T) {
	const datamodel, service = "openshell/datamodel/v1/datamodel.proto", "openshell/v1/openshell.proto"
	type descriptor = descriptorpb.FileDescriptorProto
	message := func(d *descriptor, name string) *descriptorpb.DescriptorProto {
		i := slices.IndexFunc(d.MessageType, func(m *descriptorpb.DescriptorProto) bool { return m.GetName() == name })
		return d.MessageType[i]
	}
	tests := []struct {
		name, file string
		edit       func(*descriptor)
	}{
		{"field number", datamodel, func(d *descriptor) { message(d, "ObjectMeta").Field[0].Number = proto.Int32(99) }},
		{"field name", datamodel, func(d *descriptor) { message(d, "ObjectMeta").Field[0].Name = proto.String("ident") }},
		{"field type", datamodel, func(d *descriptor) {
			message(d, "ObjectMeta").Field[0].Type = descriptorpb.FieldDescriptorProto_TYPE_BYTES.Enum()
		}},
		{"field label", datamodel, func(d *descriptor) {
			message(d, "ObjectMeta").Field[0].Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		}},
		{"field secrecy", datamodel, func(d *descriptor) {
			for _, f := range message(d, "Provider").Field {
				f.Options = nil
			}
		}},
		{"JSON name", datamodel, func(d *descriptor) { message(d, "ObjectMeta").Field[0].JsonName = proto.String("other") }},
		{"field outside the oneof", datamodel, func(d *descriptor) {
			m := message(d, "WorkspaceSelector")
			m.OneofDecl = nil
			for _, f := range m.Field {
				f.OneofIndex = nil
			}
		}},
		{"message gone", datamodel, func(d *descriptor) { d.MessageType = d.MessageType[:len(d.MessageType)-1] }},
		{"message more", datamodel, func(d *descriptor) {
			d.MessageType = append(d.MessageType, &descriptorpb.DescriptorProto{Name: proto.String("New")})
		}},
		{"reserved range", datamodel, func(d *descriptor) { message(d, "ObjectMeta").ReservedRange = nil }},
		{"reserved name", datamodel, func(d *descriptor) { message(d, "ObjectMeta").ReservedName = nil }},
		{"enum value", datamodel, func(d *descriptor) { d.EnumType[0].Value[1].Number = proto.Int32(7) }},
		{"package", "openshell/v1/deletion.proto", func(d *descriptor) { d.Package = proto.String("openshell.v2") }},
		{"rpc gone", service, func(d *descriptor) { d.Service[0].Method = d.Service[0].Method[1:] }},
		{"rpc streaming", service, func(d *descriptor) { d.Service[0].Method[0].ServerStreaming = proto.Bool(true) }},
		{"rpc authorization", service, func(d *descriptor) { d.Service[0].Method[0].Options = nil }},
		{"rpc request", service, func(d *descriptor) { d.Service[0].Method[0].InputType = d.Service[0].Method[1].InputType }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			file, err := protoregistry.GlobalFiles.FindFileByPath(test.file)
			if err != nil {
				t.Fatal(err)
			}
			edited := protodesc.ToFileDescriptorProto(file)
			test.edit(edited)
			copied, err := protodesc.FileOptions{AllowUnresolvable: true}.New(edited, protoregistry.GlobalFiles)
			if err != nil {
				t.Fatal(err)
			}
			if len(compare(readDescriptors(file), readDescriptors(copied))) == 0 {
				t.Error("the comparison does not see this change")
			}
		})
	}
}

// compare returns one line per fact that is on one side only.
func compare(want, got map[string]bool) []string {
	var differences []string
	for fact := range want {
		if !got[fact] {
			differences = append(differences, "missing: "+fact)
		}
	}
	for fact := range got {
		if !want[fact] {
			differences = append(differences, "not in the contract: "+fact)
		}
	}
	slices.Sort(differences)
	return differences
}

// readTable turns the table's lines into facts that stand alone: a field's line
// is given the name of its message.
func readTable(t *testing.T) map[string]bool {
	t.Helper()
	file, err := os.Open("testdata/api-0.1.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// Both extensions are facts of the contract that have no line of their own kind.
	facts := map[string]bool{
		"extension openshell.options.v1.authorization google.protobuf.MethodOptions 50000 openshell.options.v1.AuthorizationRule": true,
		"extension openshell.options.v1.secret google.protobuf.FieldOptions 50001 bool":                                           true,
	}
	var owner string
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		kind, rest, _ := strings.Cut(line, "\t")
		rest = strings.ReplaceAll(rest, "\t", " ")
		switch kind {
		case "package":
		case "service", "message", "enum":
			owner = rest
		case "rpc", "field", "value", "reserved", "reserved_name":
			rest = owner + " " + rest
		default:
			t.Fatalf("testdata/api-0.1.tsv:%d: unknown kind %q", n, kind)
		}
		fact := kind + " " + rest
		if facts[fact] {
			t.Fatalf("testdata/api-0.1.tsv:%d: %s: twice", n, fact)
		}
		facts[fact] = true
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return facts
}

// readDescriptors renders all that the table has words for.
func readDescriptors(files ...protoreflect.FileDescriptor) map[string]bool {
	facts := facts{}
	for _, file := range files {
		facts.add("package %s", file.Package())
		for i := range file.Services().Len() {
			facts.service(file.Services().Get(i))
		}
		facts.enums(file.Enums())
		facts.messages(file.Messages())
		for i := range file.Extensions().Len() {
			e := file.Extensions().Get(i)
			facts.add("extension %s %s %d %s", e.FullName(), e.ContainingMessage().FullName(), e.Number(), typeName(e))
		}
	}
	return facts
}

type facts map[string]bool

func (f facts) add(format string, args ...any) { f[fmt.Sprintf(format, args...)] = true }

func (f facts) service(s protoreflect.ServiceDescriptor) {
	f.add("service %s", s.FullName())
	for i := range s.Methods().Len() {
		m := s.Methods().Get(i)
		kind := "unary"
		switch {
		case m.IsStreamingClient() && m.IsStreamingServer():
			kind = "bidi"
		case m.IsStreamingClient():
			kind = "client-stream"
		case m.IsStreamingServer():
			kind = "server-stream"
		}
		rule, _ := proto.GetExtension(m.Options(), optionsv1.E_Authorization).(*optionsv1.AuthorizationRule)
		f.add("rpc %s %s %s %s %s auth=%s scope=%s global=%s workspace=%s", s.FullName(), m.Name(),
			m.Input().FullName(), m.Output().FullName(), kind,
			dash(rule.GetAuthMode()), dash(rule.GetScope()), dash(rule.GetGlobalRole()), dash(rule.GetWorkspaceRole()))
	}
}

func (f facts) enums(enums protoreflect.EnumDescriptors) {
	for i := range enums.Len() {
		e := enums.Get(i)
		f.add("enum %s", e.FullName())
		for j := range e.Values().Len() {
			f.add("value %s %d %s", e.FullName(), e.Values().Get(j).Number(), e.Values().Get(j).Name())
		}
		for j := range e.ReservedRanges().Len() {
			r := e.ReservedRanges().Get(j) // both ends inclusive
			f.add("reserved %s %d %d", e.FullName(), r[0], r[1])
		}
		f.reservedNames(e.FullName(), e.ReservedNames())
	}
}

func (f facts) messages(messages protoreflect.MessageDescriptors) {
	for i := range messages.Len() {
		m := messages.Get(i)
		if m.IsMapEntry() {
			continue // shown as the type of the field that made it
		}
		f.add("message %s", m.FullName())
		for j := range m.Fields().Len() {
			f.field(m.Fields().Get(j))
		}
		for j := range m.ReservedRanges().Len() {
			r := m.ReservedRanges().Get(j) // the end is exclusive
			f.add("reserved %s %d %d", m.FullName(), r[0], r[1]-1)
		}
		f.reservedNames(m.FullName(), m.ReservedNames())
		f.enums(m.Enums())
		f.messages(m.Messages())
	}
}

func (f facts) field(d protoreflect.FieldDescriptor) {
	label := "single"
	switch one := d.ContainingOneof(); {
	case d.IsMap():
		label = "map"
	case d.IsList():
		label = "repeated"
	case one != nil && !one.IsSynthetic():
		label = "oneof " + string(one.Name())
	case d.HasOptionalKeyword():
		label = "optional"
	}
	if secret, _ := proto.GetExtension(d.Options(), optionsv1.E_Secret).(bool); secret {
		label += " secret"
	}
	// What the table has no word for must not be there: it would be lost unseen.
	if o, _ := d.Options().(*descriptorpb.FieldOptions); o.GetPacked() || o.GetDeprecated() || d.JSONName() != jsonName(d.Name()) {
		label += " with-other-options"
	}
	f.add("field %s %d %s %s %s", d.ContainingMessage().FullName(), d.Number(), d.Name(), typeName(d), label)
}

func (f facts) reservedNames(owner protoreflect.FullName, names protoreflect.Names) {
	for i := range names.Len() {
		f.add("reserved_name %s %s", owner, names.Get(i))
	}
}

func typeName(d protoreflect.FieldDescriptor) string {
	switch {
	case d.IsMap():
		return fmt.Sprintf("map<%s,%s>", typeName(d.MapKey()), typeName(d.MapValue()))
	case d.Message() != nil:
		return string(d.Message().FullName())
	case d.Enum() != nil:
		return string(d.Enum().FullName())
	}
	return d.Kind().String()
}

// jsonName is the default JSON spelling of a field.
func jsonName(name protoreflect.Name) string {
	var b strings.Builder
	upper := false
	for _, c := range string(name) {
		switch {
		case c == '_':
			upper = true
		case upper && 'a' <= c && c <= 'z':
			b.WriteRune(c - 'a' + 'A')
			upper = false
		default:
			b.WriteRune(c)
			upper = false
		}
	}
	return b.String()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
