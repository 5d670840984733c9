package event

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var at = time.Date(2026, 11, 22, 14, 3, 0, 0, time.UTC)

func samples() map[string]Event {
	code := 3
	return map[string]Event{
		"allowed": {Time: at, Class: Network, Activity: NetOpen, Severity: Informational, Status: Success, Action: Allowed,
			Disposition: DispositionAllowed, Actor: &Actor{Name: "/usr/bin/curl", PID: 64, Parent: "/bin/sh"},
			Src: &Endpoint{IP: "10.200.0.2", Port: 40000}, Dst: &Endpoint{Domain: "api.example.com", IP: "93.184.216.34", Port: 443},
			Rule: "api", Engine: "opa", Protocol: "tcp", Message: "CONNECT allowed api.example.com:443"},
		"denied": {Time: at, Class: Network, Activity: NetOpen, Severity: Medium, Status: Failure, Action: Denied,
			Disposition: Blocked, Actor: &Actor{Name: "/usr/bin/curl", PID: 64}, Dst: &Endpoint{Domain: "httpbin.org", Port: 443},
			Rule: "-", Engine: "opa", Detail: "endpoint httpbin.org:443 is not allowed by any policy", Count: 12, First: at, Last: at.Add(time.Second)},
		"hostile": {Time: at, Class: Network, Activity: NetRefuse, Severity: Medium, Action: Denied,
			Actor: &Actor{Name: "/tmp/\x1b[31mred\nNET:OPEN [INFO] ALLOWED"}, Dst: &Endpoint{Domain: "a\u202eb\x9b]", Port: 80},
			Detail: "Bearer abcdefghijklmnopqrstuvwxyz0123 [x] \r\n"},
		"http": {Time: at, Class: HTTP, Activity: 3, Severity: Informational, Action: Allowed, Method: "GET",
			URL: "http://user:pw@example.com/a?token=1#f", Rule: "web", Engine: "opa"},
		"skipped": withTime(SkippedPath("/opt/x", "read", "no such file")),
		"limit":   KilledByLimit("/usr/bin/node", 7, "memory", "4 GiB", at),
		"exit":    {Time: at, Class: Process, Activity: ProcTerminate, Severity: Informational, Actor: &Actor{Name: "/bin/sh", PID: 2}, ExitCode: &code},
		"finding": withTime(Confirmed([]Pair{{"egress", "open"}}, "egress")),
		"start":   withTime(Started("egress proxy")),
		"loaded":  withTime(PolicyLoaded("4", "abc", 2)),
		"dropped": withTime(Dropped(9)),
	}
}

func withTime(e Event) Event { e.Time = at; return e }

func TestRecordsAndLinesAreGolden(t *testing.T) {
	for name, e := range samples() {
		t.Run(name, func(t *testing.T) {
			js, err := JSON(Origin{SandboxID: "id-1", SandboxName: "box", Hostname: "h"}, 1, e)
			if err != nil {
				t.Fatal(err)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, js, "", " "); err != nil {
				t.Fatal(err)
			}
			got := Line(e) + "\n" + pretty.String() + "\n"
			path := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzNoForeignTextEscapes(f *testing.F) {
	f.Add("\x1b]0;x\x07", "a\nb", "\u2028]")
	f.Add("\x9b31m", "\xff\xfe", "\u200b\u202e")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		e := Event{Class: Network, Activity: NetOpen, Action: Denied, Actor: &Actor{Name: a, Command: b, Parent: c},
			Dst: &Endpoint{Domain: b}, Rule: c, Detail: a, Message: b, Unmapped: []Pair{{a, b}}}
		js, err := JSON(Origin{}, 1, e)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(js) {
			t.Errorf("not JSON: %q", js)
		}
		var back any
		if err := json.Unmarshal(js, &back); err != nil {
			t.Fatal(err)
		}
		// What a reader gets after decoding must be harmless, not only the wire form.
		walk(t, back)
		check(t, Line(e))
		once := Clean(e)
		if diff := cmp.Diff(once, Clean(once)); diff != "" {
			t.Errorf("cleaning twice differs: %s", diff)
		}
	})
}

func walk(t *testing.T, v any) {
	t.Helper()
	switch v := v.(type) {
	case string:
		check(t, v)
	case []any:
		for _, x := range v {
			walk(t, x)
		}
	case map[string]any:
		for k, x := range v {
			check(t, k)
			walk(t, x)
		}
	}
}

func check(t *testing.T, s string) {
	t.Helper()
	for _, r := range s {
		if unsafeRune(r) {
			t.Errorf("unsafe rune %U in %q", r, s)
		}
	}
	if s != strings.ToValidUTF8(s, "") {
		t.Errorf("invalid UTF-8 in %q", s)
	}
}

func TestURLsLoseWhatIsPrivate(t *testing.T) {
	for in, want := range map[string]string{
		"http://u:p@h/a?b=c#d":      "http://h/a?[redacted]",
		"/a?b":                      "/a?[redacted]",
		"/a?[redacted]":             "/a?[redacted]",
		"/a/sk-abcdefghijklmnopqrs": "/a/[CREDENTIAL]",
		"/plain":                    "/plain",
	} {
		if got := RedactURL(in); got != want {
			t.Errorf("RedactURL(%q) = %q, want %q", in, got, want)
		}
	}
}
