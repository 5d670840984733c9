package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/client"
	"openshell.dev/openshell/internal/fault"
)

// createRequest turns the flags into the request, without a look at the
// network.
func (a *app) createRequest(f *createFlags) (*openshellv1.CreateSandboxRequest, error) {
	labels, err := pairs("--label", f.labels)
	if err != nil {
		return nil, err
	}
	env, err := environment(f.env)
	if err != nil {
		return nil, err
	}
	for _, u := range f.upload {
		local, _, _ := strings.Cut(u, ":")
		if _, err := os.Lstat(local); err != nil {
			return nil, misuse("--upload %q: local path does not exist: %s", u, local)
		}
	}
	if len(f.upload) > 0 && len(f.command) > 0 {
		return nil, misuse("--upload and a command contradict each other").
			Hint("%s sandbox create --upload %s, then: %s sandbox exec NAME -- %s", brand.CLI, f.upload[0], brand.CLI, quoteAll(f.command))
	}
	if f.out.structured() && len(f.command) > 0 && !f.detach {
		return nil, misuse("--output %s with a command needs --detach", f.out.value).Hint("%s sandbox create --detach -o %s -- %s", brand.CLI, f.out.value, quoteAll(f.command))
	}
	if !slices.Contains([]string{"manual", "auto"}, f.approval) {
		return nil, misuse("--approval-mode %q is not known", f.approval).Hint("--approval-mode manual or auto")
	}
	if !f.noCredentialWarnings {
		a.warnOfSecrets(env)
	}
	spec := &openshellv1.SandboxSpec{Command: f.command, Tty: a.wantTTY(f) || len(f.command) == 0 && !f.noTTY, Environment: env, Providers: f.providers}
	switch f.restart {
	case "never":
		spec.RestartPolicy = openshellv1.SandboxRestartPolicy_SANDBOX_RESTART_POLICY_NEVER
	case "on-failure":
		spec.RestartPolicy = openshellv1.SandboxRestartPolicy_SANDBOX_RESTART_POLICY_ON_FAILURE
	case "always":
		spec.RestartPolicy = openshellv1.SandboxRestartPolicy_SANDBOX_RESTART_POLICY_ALWAYS
	default:
		return nil, misuse("--restart-policy %q is not known", f.restart).Hint("--restart-policy never, on-failure or always")
	}
	if path := f.policyPath(); path != "" {
		if spec.Policy, err = loadPolicy(path); err != nil {
			return nil, err
		}
	}
	if spec.ResourceRequirements, err = gpus(f.gpu); err != nil {
		return nil, err
	}
	if spec.Template, err = f.inline(); err != nil {
		return nil, err
	}
	req := &openshellv1.CreateSandboxRequest{Spec: spec, Name: f.name, Labels: labels, WorkloadTemplate: f.template}
	if f.noKeep {
		req.Annotations = map[string]string{retention: "ephemeral"}
	}
	if f.expose != 0 {
		req.ServiceExposures = []*openshellv1.SandboxServiceExposure{{TargetPort: uint32(f.expose)}}
	}
	return req, nil
}

// retention is the annotation that lets the gateway delete a sandbox as soon
// as its output and its result are delivered.
const retention = brand.LabelPrefix + "retention"

func (f *createFlags) policyPath() string {
	if f.policy != "" {
		return f.policy
	}
	return envOr("SANDBOX_POLICY", "")
}

func gpus(word string) (*openshellv1.ResourceRequirements, error) {
	switch word {
	case "":
		return nil, nil
	case "default":
		return &openshellv1.ResourceRequirements{Gpu: &openshellv1.GpuResourceRequirements{}}, nil
	}
	n, err := strconv.ParseUint(word, 10, 32)
	if err != nil || n == 0 {
		return nil, misuse("--gpu %q is not a number of GPUs", word).Hint("--gpu=1")
	}
	count := uint32(n)
	return &openshellv1.ResourceRequirements{Gpu: &openshellv1.GpuResourceRequirements{Count: &count}}, nil
}

var (
	cpuWord    = regexp.MustCompile(`^([0-9]+m|[0-9]+(\.[0-9]+)?)$`)
	memoryWord = regexp.MustCompile(`^[0-9]+(Ki|Mi|Gi|Ti|Pi|Ei|K|M|G|T|P|E)?$`)
)

// inline is the template given by flags; nil if there is none.
func (f *createFlags) inline() (*openshellv1.SandboxTemplate, error) {
	t := &openshellv1.SandboxTemplate{}
	limits := map[string]any{}
	positive := func(s string) bool { return strings.ContainsAny(s, "123456789") }
	if f.cpu != "" {
		if !cpuWord.MatchString(f.cpu) || !positive(f.cpu) {
			return nil, misuse("--cpu %q is not a number of processors", f.cpu).Hint("--cpu 500m, --cpu 1 or --cpu 2.5")
		}
		limits["cpu"] = f.cpu
	}
	if f.memory != "" {
		if !memoryWord.MatchString(f.memory) || !positive(f.memory) {
			return nil, misuse("--memory %q is not an amount of memory", f.memory).Hint("--memory 512Mi or --memory 4Gi")
		}
		limits["memory"] = f.memory
	}
	used := f.from != ""
	if len(limits) > 0 {
		s, err := structpb.NewStruct(map[string]any{"limits": limits})
		if err != nil {
			return nil, err
		}
		t.Resources, used = s, true
	}
	if f.driverConfig != "" {
		var m map[string]any
		if err := json.Unmarshal([]byte(f.driverConfig), &m); err != nil || m == nil {
			return nil, misuse("--driver-config-json is not a JSON object").Hint(`--driver-config-json '{"native":{}}'`)
		}
		s, err := structpb.NewStruct(m)
		if err != nil {
			return nil, misuse("--driver-config-json: %v", err)
		}
		t.DriverConfig, used = s, true
	}
	if !used {
		return nil, nil
	}
	return t, nil
}

// source decides what --from means for this gateway. What lies on this
// machine can be used by a gateway on this machine.
func (f *createFlags) source(req *openshellv1.CreateSandboxRequest, t client.Target) error {
	if f.from == "" {
		return nil
	}
	image := f.from
	path := expandHome(f.from)
	st, err := os.Stat(path)
	archive := err == nil && !st.IsDir() && slices.ContainsFunc([]string{".tar", ".tar.gz", ".tgz"}, func(s string) bool { return strings.HasSuffix(path, s) })
	local := looksLocal(f.from)
	switch {
	case strings.Contains(strings.ToLower(filepath.Base(path)), "dockerfile") && (local || err == nil && !st.IsDir()):
		dir := filepath.Dir(path)
		return misuse("--from %q: images are not built here", f.from).Hint("podman build -t localhost/mine -f %s %s, then: podman save -o mine.tar localhost/mine, then: --from ./mine.tar", path, dir)
	case !archive && !local:
	case err != nil:
		return misuse("--from %q: local --from path does not exist", f.from).Hint("an image is named like ghcr.io/owner/image:tag")
	case !t.Local():
		return fault.New(fault.Unsupported, "--from %q is on this machine, gateway %q is not", f.from, t.Name).Hint("push it to a registry and name the reference")
	default:
		abs, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		image = abs
	}
	req.Spec.Template.Image = image
	return nil
}

func looksLocal(s string) bool {
	return filepath.IsAbs(s) || s == "." || s == ".." || strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../") || strings.HasPrefix(s, "~/") ||
		!strings.ContainsAny(s, "/:") && strings.EqualFold(s, "dockerfile")
}

func expandHome(p string) string {
	if rest, ok := strings.CutPrefix(p, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return p
}

// pairs reads K=V words.
func pairs(flag string, words []string) (map[string]string, error) {
	if len(words) == 0 {
		return nil, nil
	}
	out := map[string]string{}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" {
			return nil, misuse("invalid %s format '%s', expected key=value", strings.TrimPrefix(flag, "--"), w).Hint("%s key=value", flag)
		}
		out[k] = v
	}
	return out, nil
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func environment(words []string) (map[string]string, error) {
	out, err := pairs("--env", words)
	if err != nil {
		return nil, err
	}
	for k := range out {
		switch {
		case !envName.MatchString(k):
			return nil, misuse("--env: %q is not the name of a variable", k).Hint("--env NAME=value")
		case strings.HasPrefix(k, brand.EnvPrefix):
			return nil, misuse("--env: %s is reserved: names that begin with %s are ours", k, brand.EnvPrefix).Hint("choose another name")
		}
	}
	return out, nil
}

// secretWords are segments of a variable's name that say it is a secret.
var secretWords = [][]string{{"TOKEN"}, {"SECRET"}, {"PASSWORD"}, {"CREDENTIAL"}, {"ACCESS", "KEY"}, {"SECRET", "KEY"}, {"API", "KEY"}}

func (a *app) warnOfSecrets(env map[string]string) {
	var names []string
	for k := range env {
		parts := strings.Split(strings.ToUpper(k), "_")
		if slices.ContainsFunc(secretWords, func(w []string) bool {
			for i := 0; i+len(w) <= len(parts); i++ {
				if slices.Equal(parts[i:i+len(w)], w) {
					return true
				}
			}
			return false
		}) {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	for _, k := range names {
		a.note("warning: --env %s puts what looks like a secret into the sandbox, where the agent can read it (--no-credential-warnings to be quiet)", k)
	}
}

// quoteAll writes words as a shell reads them back.
func quoteAll(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = w
		if w == "" || strings.ContainsAny(w, " \t\n'\"\\$`|&;<>()*?[]#~!{}") {
			out[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(out, " ")
}
