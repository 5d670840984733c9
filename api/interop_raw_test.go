package api_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
)

// client returns a client of the server that speaks one version of HTTP only.
func client(server *httptest.Server, version2 bool) *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	if server.TLS != nil {
		roots := x509.NewCertPool()
		roots.AddCert(server.Certificate())
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, ServerName: "example.com"}
	}
	transport.Protocols.SetHTTP1(!version2)
	transport.Protocols.SetHTTP2(version2 && server.TLS != nil)
	transport.Protocols.SetUnencryptedHTTP2(version2 && server.TLS == nil)
	return &http.Client{Transport: transport}
}

// rawFailure looks at the trailers themselves: the Python SDK drops all details
// if code or message inside the details differ from those beside them.
func rawFailure(t *testing.T, server *httptest.Server) {
	request, err := http.NewRequestWithContext(limit(t), "POST", server.URL+method("GetSandbox"), bytes.NewReader(make([]byte, 5)))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("TE", "trailers")
	c := client(server, true)
	defer c.CloseIdleConnections()
	response, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
	trailer := response.Trailer
	if trailer.Get("Grpc-Status") == "" {
		trailer = response.Header // an answer without a body may have them here
	}
	binary, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(trailer.Get("Grpc-Status-Details-Bin"), "="))
	if err != nil {
		t.Fatal(err)
	}
	var inside spb.Status
	if err := proto.Unmarshal(binary, &inside); err != nil {
		t.Fatal(err)
	}
	message, err := url.PathUnescape(trailer.Get("Grpc-Message"))
	if err != nil {
		t.Fatal(err)
	}
	if message != oddMessage || inside.GetMessage() != message {
		t.Errorf("grpc-message = %q, inside the details %q", message, inside.GetMessage())
	}
	if code := trailer.Get("Grpc-Status"); code != "10" || inside.GetCode() != 10 {
		t.Errorf("grpc-status = %s, inside the details %d, want 10", code, inside.GetCode())
	}
	if len(inside.GetDetails()) != 2 {
		t.Errorf("details = %v, want two", inside.GetDetails())
	}
}

func healthz(t *testing.T, server *httptest.Server) {
	c := client(server, false)
	defer c.CloseIdleConnections()
	response, err := c.Get(server.URL + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); response.StatusCode != 200 || string(body) != "HTTP/1.1" {
		t.Errorf("GET /healthz = %d %q", response.StatusCode, body)
	}
}
