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

// program started for the length of a test.
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
		healthy(t, 2*time.Minute)
	})
}
