package cli

import (
	"bytes"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"openshell.dev/openshell/api/gen/openshellv1"
)

func TestDetachKeys(t *testing.T) {
	for _, test := range []struct {
		name   string
		in     []string
		out    string
		detach bool
	}{
		{"plain text", []string{"hello\r"}, "hello\r", false},
		{"the sequence", []string{"a\x10\x11b"}, "a", true},
		{"in two reads", []string{"\x10", "\x11"}, "", true},
		{"only its start", []string{"\x10", "x"}, "\x10x", false},
		{"start, start, end", []string{"\x10\x10\x11"}, "\x10", true},
		{"ctrl-d", []string{"ab\x04"}, "ab", true},
		{"start, then ctrl-d", []string{"\x10\x04"}, "\x10", true},
		{"ctrl-c is the process'", []string{"\x03"}, "\x03", false},
		{"kitty", []string{"\x1b[112;5u\x1b[113;5u"}, "", true},
		{"kitty with lock keys", []string{"\x1b[100;69u"}, "", true},
		{"kitty, key released", []string{"\x1b[100;5:3u"}, "\x1b[100;5:3u", false},
		{"kitty, mixed", []string{"\x10\x1b[113;5u"}, "", true},
		{"kitty, alt", []string{"\x1b[100;3u"}, "\x1b[100;3u", false},
		{"cursor keys", []string{"\x1b[A\x1b[1;5C"}, "\x1b[A\x1b[1;5C", false},
		{"tab and return are no letters", []string{"\t\r\n"}, "\t\r\n", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDetacher("")
			var out []byte
			detach := false
			for _, in := range test.in {
				got, leave := d.feed([]byte(in))
				out = append(out, got...)
				detach = detach || leave
			}
			if string(out) != test.out || detach != test.detach {
				t.Errorf("got %q, %v; want %q, %v", out, detach, test.out, test.detach)
			}
		})
	}
}

func TestDetachKeysCanBeChosen(t *testing.T) {
	d := newDetacher("ctrl-a,ctrl-x nonsense")
	if _, leave := d.feed([]byte("\x10\x11\x04")); leave {
		t.Error("the default keys detach although others were chosen")
	}
	if _, leave := d.feed([]byte("\x01\x18")); !leave {
		t.Error("the chosen keys do not detach")
	}
}

// Whatever is typed arrives unchanged and in order, but for keys withheld at
// the end and everything from the detach keys on.
func FuzzDetachKeys(f *testing.F) {
	for _, s := range []string{"", "a\x10b", "\x1b[112;5u", "\x10\x10\x11", "\x1b[1;5"} {
		f.Add([]byte(s), uint8(1))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint8) {
		d := newDetacher("")
		var out []byte
		step := int(cut%7) + 1
		for at := 0; at < len(in); at += step {
			got, leave := d.feed(in[at:min(len(in), at+step)])
			out = append(out, got...)
			if leave {
				if !bytes.HasPrefix(in, out) {
					t.Fatalf("%q came out of %q", out, in)
				}
				return
			}
		}
		if whole := append(out, d.held...); !bytes.Equal(whole, in) {
			t.Fatalf("%q came out of %q", whole, in)
		}
	})
}

func TestModesAreSwitchedOffAgain(t *testing.T) {
	for _, test := range []struct {
		name string
		in   []string
		want string
	}{
		{"nothing on", []string{"text \x1b[31mred\x1b[0m"}, ""},
		{"alternate screen", []string{"\x1b[?1049h"}, "\x1b[?1049l"},
		{"on and off", []string{"\x1b[?1049h", "\x1b[?1049l"}, ""},
		{"off and on in one", []string{"\x1b[?2004l\x1b[?2004h"}, "\x1b[?2004l"},
		{"cut in two", []string{"\x1b[?10", "00h"}, "\x1b[?1000l"},
		{"kitty pushed", []string{"\x1b[>1u"}, "\x1b[<u"},
		{"kitty popped", []string{"\x1b[>1u", "x\x1b[<u"}, ""},
		{"another private sequence", []string{"\x1b[>c"}, ""},
		{"cursor", []string{"\x1b[?25l"}, "\x1b[?25h"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var b bytes.Buffer
			m := &modes{out: &b}
			for _, in := range test.in {
				if _, err := m.Write([]byte(in)); err != nil {
					t.Fatal(err)
				}
			}
			b.Reset()
			m.restore()
			if b.String() != test.want {
				t.Errorf("restored with %q, want %q", b.String(), test.want)
			}
		})
	}
}

func TestTheNearestWord(t *testing.T) {
	words := []string{"create", "delete", "list", "policy", "workspace"}
	for in, want := range map[string]string{"creat": "create", "lsit": "list", "polcy": "policy", "work": "workspace", "xyz": "", "d": ""} {
		if got := nearest(in, words); got != want {
			t.Errorf("nearest(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestYAMLSaysWhatJSONSays(t *testing.T) {
	in := map[string]any{"b": "true", "a": []any{1, nil, "x: y", "", "1.5", "multi\nline"}, "empty": map[string]any{}}
	body, err := toJSON(in)
	if err != nil {
		t.Fatal(err)
	}
	text, err := toYAML(body)
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := yaml.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	again, err := toJSON(back)
	if err != nil || !bytes.Equal(again, body) {
		t.Errorf("changed by YAML: %v\n%s\n%s", err, body, text)
	}
}

func TestWhatOthersWroteCannotDriveATerminal(t *testing.T) {
	if got := clean("a\x1b[31mb\nc\td\u009be\x7f"); got != "a[31mb c de" {
		t.Errorf("clean = %q", got)
	}
	s := &openshellv1.SandboxLogLine{Message: "x\x1b]0;title\x07", Source: "sandbox", Level: "INFO"}
	if line := logText(s); strings.ContainsAny(line, "\x1b\x07\n") {
		t.Errorf("log line %q", line)
	}
}

func TestTheHeaderOfPolicyGetIsSkippedAndNothingElse(t *testing.T) {
	doc := "version: 1\nfilesystem_policy:\n  include_workdir: true\n"
	head := "Version: 3\nHash: abc\nStatus: Effective\n---\n"
	got := string(stripHeader([]byte(head + doc)))
	if strings.TrimLeft(got, "\n") != doc || strings.Count(got, "\n") != strings.Count(head+doc, "\n") {
		t.Errorf("got %q", got)
	}
	for _, same := range []string{doc, "version: 1\n---\nversion: 1\n", "Version 1\n---\nx: y\n", ""} {
		if got := string(stripHeader([]byte(same))); got != same {
			t.Errorf("%q became %q", same, got)
		}
	}
}
