package person

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Gateway is a gateway that a person runs, in plain text on loopback.
type Gateway struct {
	Port  string
	State string
	p     *Person
	t     testing.TB
	args  []string
	cmd   *exec.Cmd
	ended chan error
}

// Endpoint is its address, as clients are given it.
func (g *Gateway) Endpoint() string { return "http://localhost:" + g.Port }

// Gateway starts a gateway on a port (0 for any), and points the person's
// programs to it. It ends with the test, its sandboxes deleted.
func (p *Person) Gateway(port string, args ...string) *Gateway {
	p.T.Helper()
	state, err := os.MkdirTemp("", "osg") // short: it holds sockets
	if err != nil {
		p.T.Fatal(err)
	}
	if err := os.Chmod(state, 0o700); err != nil {
		p.T.Fatal(err)
	}
	p.Own(state)
	g := &Gateway{Port: port, State: state, p: p, t: p.T, args: args}
	p.T.Cleanup(func() {
		if g.cmd != nil {
			p.Do("openshell", "sandbox", "delete", "--all")
		}
		g.End(syscall.SIGTERM)
		_ = os.RemoveAll(state)
	})
	g.Begin()
	p.Env = append(p.Env, "OPENSHELL_GATEWAY_ENDPOINT="+g.Endpoint())
	return g
}

var serves = regexp.MustCompile(`msg="gateway serves" address=127\.0\.0\.1:(\d+)`)

// Begin starts it, again after End on the port it had.
func (g *Gateway) Begin() {
	g.t.Helper()
	args := append([]string{"--state-dir", g.State, "--port", g.Port, "--disable-tls", "--allow-unauthenticated-users"}, g.args...)
	cmd := g.p.Command(context.Background(), "openshell-gateway", args...)
	cmd.Cancel = nil
	out, err := cmd.StderrPipe()
	if err != nil {
		g.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	ended, found := make(chan error, 1), make(chan string, 1)
	go func() {
		var tail []string
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if m := serves.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
			}
			tail = append(tail[max(0, len(tail)-20):], lines.Text())
		}
		err := cmd.Wait()
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, strings.Join(tail, "\n"))
		}
		ended <- err
	}()
	select {
	case g.Port = <-found:
	case err := <-ended:
		g.t.Fatalf("the gateway ended: %v", err)
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill()
		g.t.Fatal("the gateway never said where it listens")
	}
	g.cmd, g.ended = cmd, ended
}

// End ends it by a signal. Its sandboxes go on.
func (g *Gateway) End(sig syscall.Signal) {
	g.t.Helper()
	if g.cmd == nil {
		return
	}
	if err := g.cmd.Process.Signal(sig); err == nil {
		select {
		case err := <-g.ended:
			if err != nil && sig == syscall.SIGTERM {
				g.t.Errorf("the gateway ended with %v", err)
			}
		case <-time.After(20 * time.Second):
			g.t.Error("the gateway does not end")
			_ = g.cmd.Process.Kill()
		}
	}
	g.cmd = nil
}
