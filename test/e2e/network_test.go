package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.dev/openshell/test/person"
)

// upstream is a web server on the host's loopback.
func upstream(t *testing.T, answer string) (port string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", answer, r.URL.Path)
	}))
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// get is a client without any library: what the shell's user would see.
const get = `
import socket, sys
def get(host, port):
    try:
        s = socket.create_connection((host, port), timeout=5)
        s.sendall(b"GET /x HTTP/1.0\r\nHost: %s\r\n\r\n" % host.encode())
        out = b""
        while True:
            d = s.recv(65536)
            if not d: break
            out += d
        return out.decode("latin1")
    except Exception as e:
        return "%s: %s" % (type(e).__name__, e)
print(get(sys.argv[1], int(sys.argv[2])))
`

func TestOnlyAllowedDestinationsAreReached(t *testing.T) {
	port := upstream(t, "hello from outside")
	person.Each(t, func(t *testing.T, p *person.Person) {
		script := p.File("get.py", get)
		events := filepath.Join(p.Home, "events.jsonl")
		r := p.Run("--allow", "host.openshell.internal:"+port, "--events", events, "-o", "json", "--",
			"/usr/bin/python3", script, "host.openshell.internal", port)
		if !strings.Contains(r.Stdout, "hello from outside /x") {
			t.Fatalf("allowed and not reached: %v", r)
		}
		for _, tt := range []struct{ name, host, port string }{
			{"another port", "host.openshell.internal", "1"},
			{"another name", "example.com", "80"},
			{"an address", "93.184.216.34", "80"},
			{"an IPv6 address", "2606:2800:220:1::1", "80"},
			{"metadata", "169.254.169.254", "80"},
			{"the host's loopback by the proxy's address", "10.200.0.1", port},
		} {
			t.Run(tt.name, func(t *testing.T) {
				r := p.Run("--allow", "host.openshell.internal:"+port, "--events", events, "--",
					"/usr/bin/python3", script, tt.host, tt.port)
				if strings.Contains(r.Stdout, "200 OK") || strings.Contains(r.Stdout, "imeout") {
					t.Errorf("not refused at once: %v", r)
				}
			})
		}
		data, err := os.ReadFile(events)
		if err != nil {
			t.Fatal(err)
		}
		var allowed, denied int
		for line := range strings.Lines(string(data)) {
			var e map[string]any
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			switch e["action"] {
			case "Allowed":
				allowed++
			case "Denied":
				denied++
			}
		}
		if allowed != 1 || denied < 4 {
			t.Errorf("%d allowed and %d denied events, want 1 and at least 4:\n%s", allowed, denied, data)
		}
	})
}

func TestADenialNamesTheNarrowestChange(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		script := p.File("get.py", get)
		r := p.Run("-o", "json", "--", "/usr/bin/python3", script, "api.example.com", "80")
		if !strings.Contains(r.Stderr, "--allow api.example.com:80") {
			t.Errorf("the change is not named: %v", r)
		}
		if !strings.Contains(r.Stdout, "403") {
			t.Errorf("the program is not told: %v", r)
		}
		denials, _ := r.Summary(t)["denials"].([]any)
		if len(denials) != 1 {
			t.Errorf("want one denial in the summary: %v", r)
		}
	})
}

func TestThePortOfTheSandboxIsForwarded(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		r := p.Run("--forward", port, "--", "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, "ss -ltnp") {
			t.Errorf("a port in use: %v", r)
		}
		l.Close()
		p.File("index.html", "from inside")
		script := fmt.Sprintf(`
import http.server, threading, sys
s = http.server.HTTPServer(("127.0.0.1", %s), http.server.SimpleHTTPRequestHandler)
print("serving", flush=True)
s.handle_request()
`, port)
		cmd := p.Command(t.Context(), "openshell", "run", "--forward", port, "--", "/usr/bin/python3", "-c", script)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 8)
		if _, err := out.Read(line); err != nil {
			t.Fatal(err)
		}
		resp, err := http.Get("http://127.0.0.1:" + port + "/index.html")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body := make([]byte, 64)
		n, _ := resp.Body.Read(body)
		if string(body[:n]) != "from inside" {
			t.Errorf("forwarded answer %q", body[:n])
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
}
