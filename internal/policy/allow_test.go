package policy_test

import (
	"strings"
	"testing"

	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/policy"
)

func TestFromAllow(t *testing.T) {
	d, err := policy.FromAllow([]string{"api.example.com", "Files.Example.org:443", "*.example.net:8443", "[fd00::1]:22", "10.0.0.5", "files.example.org:443"})
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, d)
	text := string(policy.Canonical(d))
	want := `network_policies:
  allow_10_0_0_5_443_80:
    endpoints:
      - host: "10.0.0.5"
        ports:
          - 443
          - 80
    binaries:
      - path: "/**"
  allow_any_example_net_8443:
    endpoints:
      - host: "*.example.net"
        port: 8443
    binaries:
      - path: "/**"
  allow_api_example_com_443_80:
    endpoints:
      - host: api.example.com
        ports:
          - 443
          - 80
    binaries:
      - path: "/**"
  allow_fd00__1_22:
    endpoints:
      - host: "fd00::1"
        port: 22
    binaries:
      - path: "/**"
  allow_files_example_org_443:
    endpoints:
      - host: files.example.org
        port: 443
    binaries:
      - path: "/**"
`
	if !strings.HasSuffix(text, want) {
		t.Errorf("got\n%s\nwant the end\n%s", text, want)
	}
	if vs := policy.Unenforced(d); len(vs) != 0 {
		t.Errorf("not enforced: %v", vs)
	}
	for _, bad := range []string{"", ":443", "a b", "x.example.com:0", "x.example.com:65536", "x.example.com:https", "*.com", "https://x.example.com", "127.1:80", "[fd00::1", "[fd00::1]22", "localhost:3000", "127.0.0.1:80", "[::1]:80", "169.254.169.254", "k8s.example.com:6443"} {
		_, err := policy.FromAllow([]string{bad})
		if err == nil || fault.KindOf(err) != fault.InvalidArgument || fault.HintOf(err) == "" {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestDefaultsAreValid(t *testing.T) {
	for _, d := range []*policy.Document{policy.Restrictive(), policy.RunDefault(), {}} {
		if vs := append(policy.Validate(d), policy.Unenforced(d)...); len(vs) != 0 {
			t.Errorf("%s: %v", d.Source, vs)
		}
		roundTrip(t, d)
	}
	none := &policy.Document{}
	empty, err := policy.Parse("p", []byte("version: 1\nfilesystem_policy: {}"))
	if err != nil {
		t.Fatal(err)
	}
	if !none.EffectiveFilesystem().IncludeWorkdir || empty.EffectiveFilesystem().IncludeWorkdir {
		t.Error("an absent section includes the working directory, an empty one does not")
	}
	if policy.Hash(none) == policy.Hash(empty) {
		t.Error("absent and empty have the same hash")
	}
}
