package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/gateways"
	"openshell.dev/openshell/internal/pki"
)

const (
	localName   = "local"
	localIdle   = 15 * time.Minute // ends after so long without sandboxes
	localStart  = 20 * time.Second // a loaded machine, key material, migrations
	socketLimit = 100              // sun_path has 108 bytes
)

// startLocal makes, registers and starts the private gateway of this account.
func startLocal(ctx context.Context, o Options) (Target, error) {
	state, err := stateDir()
	if err != nil {
		return Target{}, err
	}
	unlock, err := lock(ctx, state)
	if err != nil {
		return Target{}, err
	}
	defer unlock()
	if t, err := Find(o); err == nil { // another command was faster
		return wakeLocked(ctx, o, t)
	}
	m := gateways.Metadata{Name: localName, AuthMode: "mtls", Private: true, StateDir: state, UnixSocket: socketPath(state)}
	if old, err := o.Registry.Get(localName); err == nil && !old.Private {
		m.Name = "private" // the name is taken by a gateway that is not ours
	}
	if t, ok := remembered(state, m.Name); ok { // its registration was removed, not it
		if !alive(ctx, o, t) {
			err = launch(ctx, o, t)
		} else {
			err = installClientCert(o, t)
		}
		if err == nil {
			return t, o.register(t)
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return Target{}, err
		}
	}
	var lastErr error
	for range 3 { // the port was free a moment ago; somebody else may have taken it
		port, err := freePort()
		if err != nil {
			return Target{}, fault.New(fault.Exhausted, "no free port on 127.0.0.1").Cause(err)
		}
		m.Endpoint = "https://127.0.0.1:" + strconv.Itoa(port)
		t, err := newTarget(m, true, "the private gateway of this account")
		if err != nil {
			return Target{}, err
		}
		if lastErr = launch(ctx, o, t); lastErr == nil {
			return t, o.register(t)
		}
		if !errors.Is(lastErr, syscall.EADDRINUSE) {
			break
		}
	}
	return Target{}, lastErr
}

// register writes the registration where every client of the contract looks
// for it, and beside the state, where it survives `gateway remove`.
func (o Options) register(t Target) error {
	body, err := json.Marshal(t.Metadata)
	if err != nil {
		return err
	}
	path := filepath.Join(t.StateDir, rememberedFile)
	if err := os.WriteFile(path, body, 0o600); err != nil {
		return fault.New(fault.PermissionDenied, "cannot write %s", path).Cause(err)
	}
	if err := o.Registry.Put(t.Metadata); err != nil {
		return err
	}
	if err := o.Registry.SetActive(t.Name); err != nil {
		return err
	}
	o.say("started a private gateway at %s and registered it as %q (it ends after %d minutes without sandboxes)", t.Endpoint, t.Name, int(localIdle.Minutes()))
	return nil
}

const rememberedFile = "registration.json"

// remembered returns the gateway that this state belongs to.
func remembered(state, name string) (Target, bool) {
	body, err := os.ReadFile(filepath.Join(state, rememberedFile))
	if err != nil {
		return Target{}, false
	}
	var m gateways.Metadata
	if json.Unmarshal(body, &m) != nil || !m.Private {
		return Target{}, false
	}
	m.Name, m.StateDir, m.UnixSocket = name, state, socketPath(state)
	t, err := newTarget(m, true, "the private gateway of this account")
	return t, err == nil
}

// Wake starts the private gateway again if it is gone; for others it does
// nothing.
func (c *Client) Wake(ctx context.Context) error {
	if !c.Target.Private {
		return nil
	}
	_, err := wakeLocal(ctx, Options{Registry: c.registry, Workspace: c.Workspace}, c.Target)
	return err
}

// wakeLocal starts the private gateway again if its process is gone.
func wakeLocal(ctx context.Context, o Options, t Target) (Target, error) {
	if alive(ctx, o, t) {
		return t, nil
	}
	state := t.StateDir
	if state == "" {
		return t, nil
	}
	unlock, err := lock(ctx, state)
	if err != nil {
		return Target{}, err
	}
	defer unlock()
	return wakeLocked(ctx, o, t)
}

func wakeLocked(ctx context.Context, o Options, t Target) (Target, error) {
	if !t.Private || alive(ctx, o, t) {
		return t, nil
	}
	if err := launch(ctx, o, t); err != nil {
		return Target{}, err
	}
	return t, nil
}

// alive reports whether somebody accepts connections for the gateway. A
// stopping gateway has already closed its socket.
func alive(ctx context.Context, o Options, t Target) bool {
	if t.UnixSocket != "" && usable(t.UnixSocket) {
		return true
	}
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "tcp", t.Address())
	if err != nil {
		return false
	}
	_ = c.Close()
	// Somebody listens: ours answers Health under our certificates.
	return healthy(ctx, o, t)
}

func healthy(ctx context.Context, o Options, t Target) bool {
	c, err := open(o, t)
	if err != nil {
		return false
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err = c.Health(ctx, &openshellv1.HealthRequest{})
	return err == nil
}

// launch starts the gateway's process, detached, and waits until it answers.
func launch(ctx context.Context, o Options, t Target) error {
	program, err := Sibling(brand.Gateway)
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
		if healthy(ctx, o, t) {
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
	if strings.Contains(text, "address already in use") {
		return f.Cause(syscall.EADDRINUSE)
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

func (o Options) say(format string, args ...any) {
	if o.Say != nil {
		o.Say(format, args...)
	}
}

// stateDir is where the private gateway keeps its state.
func stateDir() (string, error) {
	base := os.Getenv("XDG_STATE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fault.New(fault.FailedPrecondition, "neither XDG_STATE_HOME nor HOME is set").Cause(err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, brand.ConfigDir, localName), nil
}

// StateDir is where the private gateway of this account keeps its state.
func StateDir() (string, error) { return stateDir() }

func socketPath(state string) string {
	path := filepath.Join(state, "run", "gateway.sock")
	if len(path) <= socketLimit {
		return path
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) && len(dir) < socketLimit-30 {
		return filepath.Join(dir, brand.Name+"-local.sock")
	}
	return "" // TLS alone
}

// lock keeps two commands from starting two gateways. It is released when the
// holder ends, however it ends.
func lock(ctx context.Context, dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.New(fault.PermissionDenied, "cannot make %s", dir).Cause(err)
	}
	path := filepath.Join(dir, "start.lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fault.New(fault.PermissionDenied, "cannot write %s", path).Cause(err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fault.New(fault.Internal, "lock %s", path).Cause(err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fault.New(fault.Cancelled, "interrupted while another command starts the private gateway").Cause(ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Sibling finds a program of the same release: beside this one, then on PATH.
func Sibling(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), name)
		if unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fault.New(fault.FailedPrecondition, "%s is neither beside this program nor on PATH", name).
			Hint("install all programs of one release into one directory").Cause(err)
	}
	return path, nil
}
