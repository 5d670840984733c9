// Command demo shows a sandbox at work, offline: it serves a small web page on
// this machine's loopback, starts a program in a sandbox, and lets it try one
// destination that the policy allows and one that it does not.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == "agent" {
		agent(os.Args[2], os.Args[3])
		return
	}
	if err := show(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

const host = "host.openshell.internal"

// show is the outside: an upstream, a policy, and `openshell run`.
func show() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "hello from outside the sandbox")
	}), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(l) }() // ends with Close
	defer server.Close()
	port := l.Addr().(*net.TCPAddr).Port

	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "openshell-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	policy := filepath.Join(dir, "policy.yaml")
	text := fmt.Sprintf(`version: 1
filesystem_policy:
  include_workdir: true
  read_only: [/usr, /bin, /sbin, /lib, /lib64, /etc, /proc]
  read_write: [/tmp, /dev/null]
network_policies:
  demo:
    endpoints: [{host: %s, port: %d}]
    binaries: [{path: %s}]
`, host, port, self)
	if err := os.WriteFile(policy, []byte(text), 0o644); err != nil {
		return err
	}
	private, err := os.MkdirTemp("", "openshell-demo-private-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(private)
	secret := filepath.Join(private, "secret")
	if err := os.WriteFile(secret, []byte("not for agents"), 0o644); err != nil {
		return err
	}
	fmt.Printf("the policy:\n\n%s\nthe sandbox:\n\n", text)
	cmd := exec.Command(filepath.Join(filepath.Dir(self), "openshell"), "run", "--policy", policy,
		"--ro", filepath.Dir(self), "--workdir", dir, "--", self, "agent", strconv.Itoa(port), secret)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// agent is the inside: what any program would do.
func agent(port, secret string) {
	interfaces, err := net.Interfaces()
	if err != nil {
		fmt.Println("  interfaces:", err)
		os.Exit(1)
	}
	for _, i := range interfaces {
		addrs, _ := i.Addrs()
		fmt.Printf("  interface  %s %v %v\n", i.Name, i.Flags, addrs)
	}
	ok := try("http://"+host+":"+port+"/", true)
	ok = try("http://example.com/", false) && ok
	if _, err := os.ReadFile(secret); err == nil {
		fmt.Println("  readable  ", secret, "which must not be")
		ok = false
	} else {
		fmt.Println("  invisible ", err)
	}
	if !ok {
		os.Exit(1)
	}
}

// try asks for a page and reports whether the outcome is the wanted one.
func try(url string, want bool) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		fmt.Println("  request   ", err)
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		fmt.Printf("  refused    %s: %v\n", url, err)
		return !want
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	word := "allowed"
	if resp.StatusCode != http.StatusOK {
		word = "refused"
	}
	fmt.Printf("  %s    %s: %s: %s\n", word, url, resp.Status, body)
	return (resp.StatusCode == http.StatusOK) == want
}
