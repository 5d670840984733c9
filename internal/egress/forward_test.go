package egress

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func forwardBench(t *testing.T, reply string) (*bench, *raw, string) {
	t.Helper()
	r := &raw{}
	up := serve(t, r.serve(reply))
	b := start(t, Options{Policy: rules{allow: []string{"a.example.com:" + up.port}, private: true}})
	b.zone.names["a.example.com"] = []string{"127.0.0.1"}
	return b, r, "a.example.com:" + up.port
}

const ok200 = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func TestARequestIsWrittenAgainFromWhatWasParsed(t *testing.T) {
	b, up, host := forwardBench(t, ok200)
	got := exchange(t, b.explicit, "POST http://A.example.com:"+strings.Split(host, ":")[1]+"/p?q=1 HTTP/1.1\r\n"+
		"Host: "+host+"\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nConnection: close, X-Hop\r\n"+
		"X-Hop: 1\r\nX-Keep:  two words \r\nContent-Length: 4\r\n\r\nbodyGET / HTTP/1.1\r\nHost: evil\r\n\r\n")
	if got != "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok" {
		t.Errorf("answer %q", got)
	}
	want := "POST /p?q=1 HTTP/1.1\r\nHost: " + host + "\r\nX-Keep: two words\r\nContent-Length: 4\r\nVia: 1.1 openshell-sandbox\r\n\r\nbody"
	waitFor(t, "the request", func() bool { return len(up.got()) >= len(want) })
	if up.got() != want {
		t.Errorf("upstream got %q, want %q", up.got(), want)
	}
}

func TestChunksAreWrittenAgain(t *testing.T) {
	b, up, host := forwardBench(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-T: 1\r\n\r\n")
	got := exchange(t, b.explicit, "PUT http://"+host+" HTTP/1.1\r\nHost: "+host+"\r\nTransfer-Encoding: chunked\r\n\r\n"+
		"00005;ext=\"v\"\r\nhello\r\nA\r\n0123456789\r\n0\r\nContent-Length: 9\r\nX-Trailer: t\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")
	if got != "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n" {
		t.Errorf("answer %q", got)
	}
	want := "PUT / HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: chunked\r\nVia: 1.1 openshell-sandbox\r\n\r\n" +
		"5\r\nhello\r\na\r\n0123456789\r\n0\r\nX-Trailer: t\r\n\r\n"
	waitFor(t, "the request", func() bool { return len(up.got()) >= len(want) })
	if up.got() != want {
		t.Errorf("upstream got %q, want %q", up.got(), want)
	}
}

func TestSmugglingShapesReachNobody(t *testing.T) {
	b, up, host := forwardBench(t, ok200)
	head := "POST http://" + host + "/ HTTP/1.1\r\nHost: " + host + "\r\n"
	for _, row := range []struct{ name, request, want string }{
		{"length and chunked", head + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
		{"two lengths", head + "Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", "400"},
		{"two different lengths", head + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", "400"},
		{"a list of lengths", head + "Content-Length: 4, 4\r\n\r\nabcd", "400"},
		{"a signed length", head + "Content-Length: +4\r\n\r\nabcd", "400"},
		{"a huge length", head + "Content-Length: 99999999999999999999\r\n\r\nabcd", "400"},
		{"two codings", head + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "400"},
		{"chunked twice", head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
		{"chunkedx", head + "Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", "400"},
		{"identity", head + "Transfer-Encoding: identity\r\n\r\n", "400"},
		{"a vertical tab before chunked", head + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", "400"},
		{"a blank before the colon", head + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "400"},
		{"a folded line", head + "X: a\r\n b\r\n\r\n", "400"},
		{"a bare line feed", "POST http://" + host + "/ HTTP/1.1\nHost: " + host + "\n\n", "400"},
		{"a bare line feed in a field", head + "X: a\nY: b\r\n\r\n", "400"},
		{"a carriage return in a value", head + "X: a\rb\r\n\r\n", "400"},
		{"a NUL in a value", head + "X: a\x00b\r\n\r\n", "400"},
		{"two hosts", head + "Host: " + host + "\r\n\r\n", "400"},
		{"no host", "GET http://" + host + "/ HTTP/1.1\r\n\r\n", "400"},
		{"another host", "GET http://" + host + "/ HTTP/1.1\r\nHost: evil.example.com\r\n\r\n", "request_authority_mismatch"},
		{"another port", "GET http://" + host + "/ HTTP/1.1\r\nHost: a.example.com:1\r\n\r\n", "request_authority_mismatch"},
		{"Connection names Host", head + "Connection: Host\r\n\r\n", "400"},
		{"Connection names Content-Length", head + "Connection: content-length\r\nContent-Length: 1\r\n\r\nx", "400"},
		{"chunked under HTTP/1.0", "POST http://" + host + "/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
		{"h2c", head + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", "unsupported_l7_protocol"},
		{"WebSocket with a body", head + "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx", "400"},
		{"leading CRLF", "\r\n" + head + "\r\n", ""},
		{"a space in the target", "GET http://" + host + "/a b HTTP/1.1\r\nHost: " + host + "\r\n\r\n", "400"},
		{"a tab before the version", "GET http://" + host + "/\tHTTP/1.1\r\nHost: " + host + "\r\n\r\n", "400"},
		{"a fragment", "GET http://" + host + "/#x HTTP/1.1\r\nHost: " + host + "\r\n\r\n", "400"},
		{"a backslash in the authority", "GET http://" + host + "\\@evil.com/ HTTP/1.1\r\nHost: " + host + "\r\n\r\n", "400"},
		{"129 fields", head + strings.Repeat("X: y\r\n", 129) + "\r\n", "431"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := exchange(t, b.explicit, row.request)
			if !strings.Contains(got, row.want) || strings.HasPrefix(got, "HTTP/1.1 200") {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
	if got := up.got(); got != "" {
		t.Errorf("upstream got %q", got)
	}
}

func TestABadBodyIsNeverAWholeRequest(t *testing.T) {
	for _, row := range []struct{ name, body string }{
		{"0x", "0x5\r\nhello\r\n0\r\n\r\n"},
		{"signed", "+5\r\nhello\r\n0\r\n\r\n"},
		{"no end", "5\r\nhelloXX0\r\n\r\n"},
		{"bare line feed", "5\nhello\r\n0\r\n\r\n"},
		{"overflow", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"},
		{"blank size", "\r\nhello\r\n0\r\n\r\n"},
		{"bad trailer", "0\r\nbad trailer\r\n\r\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := &raw{}
			up := serve(t, func(c net.Conn) { // answers only whole requests
				buf := make([]byte, 4096)
				for {
					n, err := c.Read(buf)
					r.mu.Lock()
					r.seen = append(r.seen, buf[:n]...)
					r.mu.Unlock()
					if err != nil {
						return
					}
				}
			})
			b := start(t, Options{Policy: rules{allow: []string{"a.example.com:" + up.port}, private: true}})
			b.zone.names["a.example.com"] = []string{"127.0.0.1"}
			host := "a.example.com:" + up.port
			got := exchange(t, b.explicit, "POST http://"+host+"/ HTTP/1.1\r\nHost: "+host+"\r\nTransfer-Encoding: chunked\r\n\r\n"+row.body)
			if !strings.HasPrefix(got, "HTTP/1.1 400 ") {
				t.Errorf("got %q", got)
			}
			if strings.HasSuffix(r.got(), "0\r\n\r\n") {
				t.Errorf("upstream got a whole request: %q", r.got())
			}
		})
	}
}

func TestAnswersAreRelayedByTheirFraming(t *testing.T) {
	for _, row := range []struct{ name, method, reply, want string }{
		{"until close", "GET", "HTTP/1.1 200 OK\r\n\r\nall of it", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it"},
		{"HEAD with a length", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\n"},
		{"204", "GET", "HTTP/1.1 204 No Content\r\nKeep-Alive: timeout=5\r\nConnection: keep-alive\r\n\r\n", "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"},
		{"304 with a length", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"},
		{"early hints", "GET", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok200, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"},
		{"bytes beyond the answer", "GET", ok200 + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"},
		{"no reason", "GET", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 \r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		{"no status", "GET", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 502"},
		{"two lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 502"},
		{"101 unasked", "GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nxx", "HTTP/1.1 502"},
		{"not HTTP", "GET", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 502"},
	} {
		t.Run(row.name, func(t *testing.T) {
			up := serve(t, func(c net.Conn) {
				_, _ = bufio.NewReader(c).ReadString('\n')
				_, _ = io.WriteString(c, row.reply)
				_ = c.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, c)
			})
			b := start(t, Options{Policy: rules{allow: []string{"a.example.com:" + up.port}, private: true}})
			b.zone.names["a.example.com"] = []string{"127.0.0.1"}
			host := "a.example.com:" + up.port
			got := exchange(t, b.explicit, row.method+" http://"+host+"/ HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
			if row.want == "HTTP/1.1 502" && strings.HasPrefix(got, row.want) {
				return
			}
			if got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

func TestACutAnswerDoesNotLookComplete(t *testing.T) {
	for name, reply := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			up := serve(t, func(c net.Conn) {
				_, _ = bufio.NewReader(c).ReadString('\n')
				_, _ = io.WriteString(c, reply)
			})
			b := start(t, Options{Policy: rules{allow: []string{"a.example.com:" + up.port}, private: true}})
			b.zone.names["a.example.com"] = []string{"127.0.0.1"}
			c := dial(t, b.explicit)
			fmt.Fprintf(c, "GET http://a.example.com:%s/ HTTP/1.1\r\nHost: a.example.com:%s\r\n\r\n", up.port, up.port)
			if got, err := io.ReadAll(c); err == nil {
				t.Errorf("ended cleanly after %q", got)
			}
		})
	}
}

func TestAWebSocketUpgradeIsATunnel(t *testing.T) {
	up := serve(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if line == "\r\n" {
				break
			}
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhi")
		_, _ = io.Copy(c, r)
	})
	b := start(t, Options{Policy: rules{allow: []string{"a.example.com:" + up.port}, private: true}})
	b.zone.names["a.example.com"] = []string{"127.0.0.1"}
	host := "a.example.com:" + up.port
	c := dial(t, b.explicit)
	fmt.Fprintf(c, "GET http://%s/ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n", host, host)
	want := "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v", got, err)
	}
	_, _ = io.WriteString(c, "frame\n")
	if got := readLine(t, c); got != "frame\n" {
		t.Errorf("echo %q", got)
	}
}

func TestGoClientsWorkThroughTheProxy(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(okHandler))
	defer srv.Close()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(srv.URL, "http://"))
	b := start(t, Options{Policy: rules{allow: []string{"web.example.com:" + port}, private: true}})
	b.zone.names["web.example.com"] = []string{"127.0.0.1"}
	for _, scheme := range []string{"http", "socks5h"} {
		proxy := &url.URL{Scheme: scheme, Host: b.explicit}
		tr := &http.Transport{Proxy: http.ProxyURL(proxy)}
		client := &http.Client{Transport: tr, Timeout: 20 * time.Second}
		for _, body := range []io.Reader{nil, bytes.NewReader(make([]byte, 100_000)), struct{ io.Reader }{bytes.NewReader(make([]byte, 300_000))}} {
			res, err := client.Post("http://web.example.com:"+port+"/x?y=z", "application/octet-stream", body)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if want := "hello from web.example.com:" + port + "/x?y=z"; string(got) != want {
				t.Errorf("%s: %q, want %q", scheme, got, want)
			}
		}
		tr.CloseIdleConnections()
	}
}
