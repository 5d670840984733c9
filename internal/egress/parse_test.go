package egress

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"openshell.dev/openshell/internal/policy"
)

func TestCanonicalHosts(t *testing.T) {
	for _, row := range []struct{ in, want string }{
		{"example.com", "example.com"},
		{"EXAMPLE.com.", "example.com"},
		{"a_b.example.com", "a_b.example.com"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"127.0.0.1", "127.0.0.1"},
		{"::ffff:10.0.0.1", "10.0.0.1"},
		{"2001:DB8:0::1", "2001:db8::1"},
		{"", ""}, {".", ""}, {"a..b", ""}, {".a", ""}, {"a.com..", ""},
		{"bücher.example", ""}, {"a b", ""}, {"a%2eb.com", ""}, {"a@b.com", ""}, {"a:1", ""}, {"[::1]", ""},
		{"-a.com", ""}, {"a-.com", ""}, {"evil\x00.com", ""}, {"a/b", ""}, {"a\\b", ""},
		{"0177.0.0.1", ""}, {"127.1", ""}, {"2130706433", ""}, {"0x7f000001", ""}, {"a.0x7f", ""}, {"1.2.3.4.5", ""}, {"01.02.03.04", ""},
		{"fe80::1%eth0", ""},
		{strings.Repeat("a", 64) + ".com", ""},
		{strings.Repeat("a.", 127) + "com", ""},
		{"1.2.3.com", "1.2.3.com"},
		{"a.0xg", "a.0xg"},
	} {
		got, addr, err := canonicalHost(row.in)
		if got != row.want || (err == nil) != (row.want != "") || addr.IsValid() && addr.String() != got {
			t.Errorf("canonicalHost(%q) = %q, %v, %v, want %q", row.in, got, addr, err, row.want)
		}
	}
}

// The string decided is the string resolved and dialled: canonical hosts are
// fixed points, hold nothing that another parser could read differently, and
// agree with net/url about what a host is.
func FuzzAuthority(f *testing.F) {
	for _, s := range []string{"example.com:443", "[::1]:80", "A.B:1", "127.0.0.1:0", "a@b:1", "evil\x00.com:443", "0x7f.1:80", "a.com:+80", "[::ffff:1.2.3.4]:5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, addr, port, err := parseAuthority(s, 0)
		if err != nil {
			return
		}
		again, addr2, err := canonicalHost(host)
		if err != nil || again != host || addr2 != addr || port == 0 {
			t.Fatalf("%q: %q is not canonical: %q %v", s, host, again, err)
		}
		if strings.ContainsAny(host, "\x00\r\n\t /\\@%?#[]\"<>") || strings.ToLower(host) != host {
			t.Fatalf("%q: host %q", s, host)
		}
		if theirs, err := policy.CanonicalHost(host); err != nil || theirs != host {
			t.Fatalf("%q: we say %q, the policy says %q, %v", s, host, theirs, err)
		}
		u, err := url.Parse("http://" + s + "/")
		if err != nil {
			return
		}
		theirs := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
		if a, err := netip.ParseAddr(theirs); err == nil {
			theirs = a.Unmap().String()
		}
		if theirs != host {
			t.Fatalf("%q: we say %q, net/url says %q", s, host, theirs)
		}
	})
}

// What we accept, net/http reads as the same request, once.
func FuzzForwardedRequest(f *testing.F) {
	f.Add("GET http://a.example.com/x?y HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
	f.Add("POST http://a.example.com:8080 HTTP/1.1\r\nHost: a.example.com:8080\r\nContent-Length: 3\r\n\r\nabcdef")
	f.Add("PUT http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: X-Y\r\nX-Y: 1\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
	f.Add("GET http://[::1]/ HTTP/1.0\r\n\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		rawHead, rest, err := readHead(strings.NewReader(s), nil, maxRequestHead)
		if err != nil {
			return
		}
		h, err := parseRequest(rawHead)
		if err != nil {
			return
		}
		if h.method == "CONNECT" {
			return
		}
		req, _, why := readForward(h)
		if why != "" || req.code != "" {
			return
		}
		var out bytes.Buffer
		w := bufio.NewWriter(&out)
		_, _ = w.Write(req.bytes())
		if copyBody(w, bufio.NewReader(bytes.NewReader(rest)), req.body) != nil {
			return
		}
		r := bufio.NewReader(&out)
		got, err := http.ReadRequest(r)
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", out.String(), err)
		}
		if got.Method != req.head.method || got.RequestURI != req.intent.Target || got.Host != hostField(req.intent) {
			t.Fatalf("decided %s %s %s, net/http reads %s %s %s", req.head.method, hostField(req.intent), req.intent.Target, got.Method, got.Host, got.RequestURI)
		}
		if _, err := io.Copy(io.Discard, got.Body); err != nil {
			t.Fatalf("net/http cannot read the body: %v", err)
		}
		if left, _ := io.ReadAll(r); len(left) != 0 {
			t.Fatalf("%q remains for a second request", left)
		}
	})
}

// What we accept of a response, net/http reads with the same framing.
func FuzzResponseHead(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
	f.Add("HTTP/1.0 404 \r\nTransfer-Encoding: chunked\r\n\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := readResponse(bufio.NewReader(strings.NewReader(s)))
		if err != nil || h.status < 200 {
			return
		}
		req := &request{head: &head{method: "GET", minor: '1'}}
		body, err := req.answerFraming(h)
		if err != nil {
			return
		}
		got, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answerHead(h, true))), &http.Request{Method: "GET"})
		if err != nil {
			return // net/http refuses more than we write
		}
		_ = got.Body.Close()
		if got.StatusCode != h.status {
			t.Fatalf("status %d, net/http reads %d", h.status, got.StatusCode)
		}
		chunked := len(got.TransferEncoding) > 0
		if chunked != (body.kind == bodyChunked) || body.kind == bodyLength && got.ContentLength != body.length {
			t.Fatalf("framing %+v, net/http reads %v %d of %q", body, got.TransferEncoding, got.ContentLength, answerHead(h, true))
		}
	})
}

type pipe struct {
	io.Reader
	io.Writer
}

// Whatever a SOCKS client sends, a request is a canonical destination or an
// error with an answer that is a SOCKS answer.
func FuzzSocks(f *testing.F) {
	f.Add([]byte("\x01\x00\x05\x01\x00\x03\x0bexample.com\x01\xbb"))
	f.Add([]byte("\x02\x02\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50"))
	f.Add([]byte("\x01\x00\x05\x01\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x7f\x00\x00\x01\x00\x50"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		got, answer, err := socksRequest(pipe{bytes.NewReader(in), &out})
		if err != nil {
			if answer != nil && (answer[0] != 5 || len(answer) != 2 && len(answer) != 10 || answer[1] == socksSucceeded) {
				t.Fatalf("answer %x with %v", answer, err)
			}
			return
		}
		again, addr, err := canonicalHost(got.Host)
		if err != nil || again != got.Host || addr != got.Addr || got.Port == 0 || out.String() != "\x05\x00" {
			t.Fatalf("intent %+v, sent %x", got, out.Bytes())
		}
	})
}
