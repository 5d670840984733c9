package client

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/pki"
	"openshell.dev/openshell/internal/sibling"
)

// launch starts the gateway's process, detached, and waits until it answers.
func launch(ctx context.Context, o Options, t Target) error {
	program, err := sibling.Find(brand.Gateway)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(t.StateDir, 0o700); err != nil {
		return fault.New(fault.PermissionDenied, "cannot make %s", t.StateDir).Cause(err)
	}
	logPath := filepath.Join(t.StateDir, "gateway.log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fault.New(fault.PermissionDenied, "cannot write %s", logPath).Cause(err)
	}
	defer log.Close()
	begin, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("read the size of %s: %w", logPath, err)
	}
	socket := t.UnixSocket
	if socket == "" {
		socket = "off"
	}
	cmd := exec.Command(program, "--bind-address", "127.0.0.1", "--port", t.URL.Port(), "--state-dir", t.StateDir,
		"--socket", socket, "--idle-exit", localIdle.String(), "--disable-tls=false", "--enable-mtls-auth=true")
	cmd.Dir = "/"
	cmd.Env = localEnv()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives the terminal
	if err := cmd.Start(); err != nil {
		return fault.New(fault.Internal, "start %s", program).Cause(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the gateway or with this process
	ctx, cancel := context.WithTimeout(ctx, localStart)
	defer cancel()
	for wait := 2 * time.Millisecond; ; wait = min(wait*2, 50*time.Millisecond) {
		select {
		case err := <-ended:
			return t.died(logPath, begin, err)
		case <-ctx.Done():
			_ = cmd.Process.Kill()
			<-ended
			return fault.New(fault.DeadlineExceeded, "the private gateway did not answer within %s", localStart).
				Hint("tail %s", logPath)
		case <-time.After(wait):
		}
		if t.UnixSocket != "" && !usable(t.UnixSocket) {
			continue
		}
		if err := installClientCert(o, t); err != nil {
			continue // the key material is still being made
		}
		if alive(ctx, o, t) {
			return nil
		}
	}
}

// installClientCert puts the client's half of the bundle where every client
// of the contract looks for it.
func installClientCert(o Options, t Target) error {
	bundle := filepath.Join(t.StateDir, "tls")
	dst := o.Registry.MTLSDir(t.Name)
	same := true
	for from, to := range map[string]string{pki.CACert: "ca.crt", pki.ClientCert: "tls.crt", pki.ClientKey: "tls.key"} {
		a, err := os.ReadFile(filepath.Join(bundle, from))
		if err != nil {
			return err
		}
		if b, err := os.ReadFile(filepath.Join(dst, to)); err != nil || string(a) != string(b) {
			same = false
		}
	}
	if same {
		return nil
	}
	return pki.CopyClient(bundle, dst)
}

// died explains why the gateway ended at once, from what it wrote.
func (t Target) died(logPath string, begin int64, err error) error {
	text := lastLine(logPath, begin)
	f := fault.New(fault.Unavailable, "the private gateway ended at once: %s", text).Hint("tail %s", logPath)
	if strings.Contains(text, "address already in use") || strings.Contains(text, "another gateway has the database") {
		return f.Cause(syscall.EADDRINUSE) // callers may try again
	}
	if err != nil && text == "" {
		return fault.New(fault.Unavailable, "the private gateway ended at once: %v", err).Hint("tail %s", logPath)
	}
	return f
}

// lastLine returns the last error that was written after begin.
func lastLine(path string, begin int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	body, err := io.ReadAll(io.NewSectionReader(f, begin, 64<<10))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(body)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if _, after, ok := strings.Cut(lines[i], "error: "); ok {
			return oneLine(after)
		}
	}
	return oneLine(lines[len(lines)-1])
}

// localEnv is the caller's environment without our own variables, which speak
// to clients, but for those that say where images come from.
func localEnv() []string {
	var out []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		keep := !strings.HasPrefix(name, brand.EnvPrefix)
		for _, s := range []string{"COMMUNITY_REGISTRY", "CATALOGUE", "IMAGE_CACHE_DIR", "LOG_LEVEL", "GATEWAY_CONFIG"} {
			keep = keep || name == brand.Env(s)
		}
		if keep {
			out = append(out, kv)
		}
	}
	return out
}
