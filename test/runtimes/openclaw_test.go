package runtimes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"openshell.dev/openshell/test/imagebuild"
	"openshell.dev/openshell/test/person"
)

// clawPort is where OpenClaw listens inside; it is forwarded to the same port.
const clawPort = "18789"

// freePort skips unless the port of the published command can be taken.
func freePort(t *testing.T, port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Skipf("port %s is in use on this machine", port)
	}
	l.Close()
}

// clawRegistry is a registry with the image openclaw in it.
func clawRegistry(t *testing.T) string {
	t.Helper()
	img, err := imagebuild.OpenClaw(t.Context())
	if errors.Is(err, imagebuild.ErrUnavailable) {
		t.Skipf("%v; get it with: go run ./test/runtimes/fetch", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := imagebuild.Serve(t)
	r.Push(t, "openclaw:latest", img)
	return r.Host
}

// started is a program that runs for the length of a test.
type started struct {
	cmd *exec.Cmd
	out *strings.Builder
}

func start(t *testing.T, p *person.Person, args ...string) *started {
	t.Helper()
	s := &started{cmd: p.Command(context.Background(), "openshell", args...), out: &strings.Builder{}}
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	s.cmd.WaitDelay = 5 * time.Second
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(20*time.Second, func() { _ = s.cmd.Process.Kill() })
		_ = s.cmd.Wait()
		timer.Stop()
		if t.Failed() {
			t.Logf("%v:\n%.4000s", args, s.out)
		}
	})
	return s
}

// healthy waits until the health page answers.
func healthy(t *testing.T, limit time.Duration) {
	t.Helper()
	var last error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if last = health(); last == nil {
			return
		}
	}
	t.Fatalf("the health page does not answer: %v", last)
}

func health() error {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://127.0.0.1:" + clawPort + "/health")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, 4096))
	if err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK || !strings.Contains(string(body), `"ok":true`) {
		return fmt.Errorf("%s: %s", r.Status, body)
	}
	return nil
}

// TestOpenClawRuns is the command of the published guide, without a daemon.
func TestOpenClawRuns(t *testing.T) {
	freePort(t, clawPort)
	registry := clawRegistry(t)
	person.Each(t, func(t *testing.T, p *person.Person) {
		p.Env = append(p.Env, "OPENSHELL_COMMUNITY_REGISTRY="+registry)
		start(t, p, "run", "--forward", clawPort, "--from", "openclaw", "--", "openclaw-start")
		healthy(t, 4*time.Minute)
	})
}

// TestOpenClawThroughTheGateway is the published command against a gateway:
// the page answers for a while, and again after the gateway was killed and
// started anew, without anybody touching the sandbox or the command.
func TestOpenClawThroughTheGateway(t *testing.T) {
	freePort(t, clawPort)
	registry := clawRegistry(t)
	person.Each(t, func(t *testing.T, p *person.Person) {
		port := "8080"
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err != nil {
			port = "0" // somebody else's; the number is only the guide's
		} else {
			l.Close()
		}
		p.Env = append(p.Env, "OPENSHELL_COMMUNITY_REGISTRY="+registry)
		g := p.Gateway(port)
		s := start(t, p, "sandbox", "create", "--name", "claw", "--forward", clawPort, "--from", "openclaw", "--", "openclaw-start")
		healthy(t, 4*time.Minute)
		staysHealthy(t)
		before := pidsInside(t, p)
		g.End(syscall.SIGKILL)
		g.Begin()
		healthy(t, time.Minute)
		staysHealthy(t)
		if after := pidsInside(t, p); after != before {
			t.Errorf("the programs inside were %s before the gateway was killed, and are %s", before, after)
		}
		if s.cmd.ProcessState != nil {
			t.Error("the command ended when the gateway did")
		}
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); health() == nil; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the page still answers after the command was ended")
			}
		}
	})
}

// watched is how long the page must keep answering.
const watched = 30 * time.Second

func staysHealthy(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(watched); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		if err := health(); err != nil {
			t.Fatalf("the health page stopped answering: %v", err)
		}
	}
}

// pidsInside names the long-lived programs of the sandbox.
func pidsInside(t *testing.T, p *person.Person) string {
	t.Helper()
	r := p.Do("openshell", "sandbox", "exec", "-n", "claw", "--no-stdin", "--", "sh", "-c",
		`cd /proc; for d in [0-9]*; do case "$(cat $d/comm)" in openclaw*) echo $d; esac; done`)
	if r.Code != 0 || strings.TrimSpace(r.Stdout) == "" {
		t.Fatalf("OpenClaw is not among the programs: %v", r)
	}
	return strings.Join(strings.Fields(r.Stdout), " ")
}
