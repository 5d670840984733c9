package cli

import (
	"os"
	"strings"

	"openshell.dev/openshell/api/gen/sandboxv1"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/policy"
	"openshell.dev/openshell/internal/policyproto"
)

// policyView is a policy as JSON, in the spelling of the file.
func policyView(m *sandboxv1.SandboxPolicy) (any, error) {
	d, err := policyproto.Document(m)
	if err != nil || d == nil {
		return nil, err
	}
	return rawJSON(policy.JSON(d)), nil
}

// rawJSON is JSON that is already written.
type rawJSON []byte

// MarshalJSON returns the bytes.
func (r rawJSON) MarshalJSON() ([]byte, error) { return r, nil }

// loadPolicy reads and checks a policy file before anything is sent.
func loadPolicy(path string) (*sandboxv1.SandboxPolicy, error) {
	body, err := readBounded(path, policy.MaxBytes)
	if err != nil {
		return nil, err
	}
	d, err := policy.Parse(path, stripHeader(body))
	if err != nil {
		return nil, &failed{err}
	}
	if err := policy.NewError(d, policy.ReservedKeys(d)); err != nil {
		return nil, &failed{err}
	}
	return policyproto.Proto(d)
}

// stripHeader removes the lines that `policy get` prints before the document
// in the released versions, so that what was written to a file can be set. Blank
// lines stand in for them: positions stay those of the file.
func stripHeader(body []byte) []byte {
	text := string(body)
	if !strings.HasPrefix(text, "Version:") && !strings.HasPrefix(text, "Policy") {
		return body
	}
	head, rest, ok := strings.Cut(text, "\n---\n")
	if !ok || strings.Contains(head, "\n\n\n") {
		return body
	}
	for line := range strings.SplitSeq(head, "\n") {
		key, _, ok := strings.Cut(line, ":")
		if !ok || key == "" || strings.ToUpper(key[:1]) != key[:1] {
			return body // not a header: keys of a policy are in lower case
		}
	}
	return []byte(strings.Repeat("\n", strings.Count(head, "\n")+2) + rest)
}

func readBounded(path string, limit int64) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		f := fault.New(fault.NotFound, "cannot read %q", path).Cause(errno(err))
		return nil, f.Hint("check the path; the current directory is %s", cwd())
	}
	if st.IsDir() {
		return nil, fault.New(fault.FailedPrecondition, "%q is a directory, not a file", path)
	}
	if st.Size() > limit {
		return nil, fault.New(fault.FailedPrecondition, "%q is larger than %d bytes", path, limit)
	}
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.PermissionDenied, "cannot read %q", path).Cause(errno(err))
	}
	return body, nil
}

func cwd() string {
	dir, err := os.Getwd()
	if err != nil {
		return "unknown"
	}
	return dir
}
