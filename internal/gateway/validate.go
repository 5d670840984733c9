package gateway

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"openshell.dev/openshell/api/gen/datamodelv1"
	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/compute"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/model"
)

// pyfunc is the one reserved variable that a client may set: the Python SDK
// ships functions in it.
var pyfunc = brand.Env("PYFUNC_B64")

// checkName checks the name of a new sandbox.
func checkName(name string) error {
	if err := model.CheckName(name); err != nil {
		return invalid("name", "%v", err)
	}
	if strings.Contains(name, "--") {
		return invalid("name", "name %q must not contain consecutive hyphens", name)
	}
	return nil
}

// checkEnv checks environment variables; total bounds their bytes, 0 not at all.
func checkEnv(field string, env map[string]string, entries, valueMax, total int) error {
	if entries > 0 && len(env) > entries {
		return invalid(field, "at most %d environment variables are allowed", entries)
	}
	sum := 0
	for _, k := range slices.Sorted(maps.Keys(env)) {
		v := env[k]
		sum += len(k) + len(v)
		switch {
		case !envName(k):
			return invalid(field, "environment variable name %q is not valid", k)
		case strings.HasPrefix(k, brand.EnvPrefix) && k != pyfunc:
			return invalid(field, "environment variable %q uses the reserved prefix %s", k, brand.EnvPrefix)
		case strings.ContainsRune(v, 0):
			return invalid(field, "environment variable %q has a NUL byte", k)
		case len(v) > valueMax && k != pyfunc:
			return invalid(field, "environment variable %q is longer than %d bytes", k, valueMax)
		}
	}
	if total > 0 && sum > total {
		return invalid(field, "the environment is larger than %d bytes", total)
	}
	return nil
}

func envName(k string) bool {
	if k == "" || len(k) > 256 {
		return false
	}
	for i := range len(k) {
		c := k[i]
		letter := c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// checkCommand checks an argument vector against its bounds.
func checkCommand(field string, argv []string, args, total int) error {
	if len(argv) > args {
		return invalid(field, "at most %d arguments are allowed", args)
	}
	sum := 0
	for i, a := range argv {
		sum += len(a)
		switch {
		case i == 0 && a == "":
			return invalid(field, "the command must not be empty")
		case len(a) > 32<<10:
			return invalid(field, "argument %d is longer than 32 KiB", i)
		case strings.ContainsRune(a, 0):
			return invalid(field, "argument %d has a NUL byte", i)
		}
	}
	if sum > total {
		return invalid(field, "the command is larger than %d KiB", total>>10)
	}
	return nil
}

// checkMeta checks labels and annotations by the rules of Kubernetes.
func checkMeta(labels, annotations map[string]string) error {
	for k, v := range labels {
		if !qualified(k, 253) || len(v) > 63 || (v != "" && !word(v)) {
			return invalid("labels", "label %q is not valid", k+"="+v)
		}
	}
	if len(annotations) > 128 {
		return invalid("annotations", "at most 128 annotations are allowed")
	}
	for k, v := range annotations {
		if !qualified(k, 256) || len(v) > 8192 {
			return invalid("annotations", "annotation %q is not valid", k)
		}
		if strings.HasPrefix(k, brand.Internal) && !(strings.HasSuffix(k, "/retention") && v == "ephemeral") { // the one a command line sends
			return invalid("annotations", "annotation %q uses the reserved prefix %s", k, brand.Internal)
		}
	}
	return nil
}

// qualified reports whether k is [prefix/]name.
func qualified(k string, limit int) bool {
	prefix, name, has := strings.Cut(k, "/")
	if !has {
		prefix, name = "", k
	}
	if len(k) > limit || len(name) > 63 || !word(name) {
		return false
	}
	return !has || (prefix != "" && strings.Trim(prefix, "abcdefghijklmnopqrstuvwxyz0123456789.-") == "")
}

// word: letters, digits, and -_. inside.
func word(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') {
			continue
		}
		if i == 0 || i == len(s)-1 || !strings.ContainsRune("-_.", rune(c)) {
			return false
		}
	}
	return s != ""
}

// selector reads "k=v,k2=v2".
func selector(s string) (map[string]string, error) {
	if s == "" {
		return nil, nil
	}
	out := map[string]string{}
	for pair := range strings.SplitSeq(s, ",") {
		k, v, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if !ok || !qualified(k, 253) {
			return nil, invalid("label_selector", "invalid label selector: expected 'key=value', got '%s'", pair)
		}
		if out[k] = v; len(out) > 64 {
			return nil, invalid("label_selector", "invalid label selector: at most 64 pairs")
		}
	}
	return out, nil
}

// single returns the one workspace that a selector names.
func single(s *datamodelv1.WorkspaceSelector) (string, error) {
	switch s.GetSelection().(type) {
	case *datamodelv1.WorkspaceSelector_Workspace:
		if s.GetWorkspace() != "" {
			return s.GetWorkspace(), nil
		}
		return "", invalid("workspace_scope", "workspace_scope.workspace must not be empty")
	case *datamodelv1.WorkspaceSelector_AllWorkspaces:
		return "", invalid("workspace_scope", "all_workspaces is not accepted here")
	}
	return "", invalid("workspace_scope", "workspace_scope is required")
}

// limitsOf reads the resources of a spec.
func limitsOf(spec *openshellv1.SandboxSpec) (compute.Limits, error) {
	var l compute.Limits
	if gpu := spec.GetResourceRequirements().GetGpu(); gpu != nil {
		if gpu.Count != nil && gpu.GetCount() == 0 {
			return l, invalid("spec.resource_requirements.gpu.count", "gpu count must be greater than 0")
		}
		l.GPUs = max(1, gpu.GetCount())
	}
	resources := spec.GetTemplate().GetResources().AsMap()
	for _, group := range []string{"requests", "limits"} { // a limit wins
		m, _ := resources[group].(map[string]any)
		for name, v := range m {
			field := "spec.template.resources." + group + "." + name
			n, err := quantity(v)
			if err != nil {
				return l, invalid(field, "%s: %v", name, err)
			}
			switch name {
			case "cpu":
				l.MilliCPU = n
			case "memory":
				l.Memory = (n + 999) / 1000
			default:
				return l, fault.New(fault.Unsupported, "resource %q cannot be limited", name).On(field)
			}
		}
	}
	return l, nil
}

// quantity reads a Kubernetes quantity and returns it in thousandths.
func quantity(v any) (int64, error) {
	s := strings.TrimSpace(fmt.Sprint(v))
	suffixes := []struct {
		text  string
		times float64
	}{{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40}, {"m", 0.001}, {"k", 1e3}, {"K", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}}
	times := 1.0
	for _, x := range suffixes {
		if n, ok := strings.CutSuffix(s, x.text); ok {
			s, times = n, x.times
			break
		}
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || n <= 0 || math.IsInf(n, 0) || math.IsNaN(n) || n*times > 1e15 {
		return 0, fmt.Errorf("%q is not a positive quantity such as 500m, 2 or 4Gi", fmt.Sprint(v))
	}
	return int64(math.Ceil(n * times * 1000)), nil
}
