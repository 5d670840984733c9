package native

import (
	"reflect"
	"strings"
	"testing"

	"openshell.dev/openshell/internal/supervisor"
)

// TestTheSpecIsTheSupervisors compares the mirror with the original: control
// must not import enforcement, but a field of another name would be lost.
func TestTheSpecIsTheSupervisors(t *testing.T) {
	compare(t, "spec", reflect.TypeFor[spec](), reflect.TypeFor[supervisor.Spec]())
}

func compare(t *testing.T, at string, ours, theirs reflect.Type) {
	t.Helper()
	if theirs.Kind() == reflect.Pointer {
		theirs = theirs.Elem()
	}
	if ours.Kind() != reflect.Struct {
		if ours != theirs {
			t.Errorf("%s is %v here and %v there", at, ours, theirs)
		}
		return
	}
	known := map[string]reflect.StructField{}
	for f := range theirs.Fields() {
		known[jsonName(f)] = f
	}
	for f := range ours.Fields() {
		name := jsonName(f)
		their, ok := known[name]
		if !ok {
			t.Errorf("%s.%s is not known to the supervisor", at, name)
			continue
		}
		compare(t, at+"."+name, f.Type, their.Type)
	}
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
