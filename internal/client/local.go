package client

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/gateways"
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
	if !t.Private {
		return t, nil
	}
	for limit := time.Now().Add(localStart); ; {
		if alive(ctx, o, t) {
			return t, nil
		}
		err := launch(ctx, o, t)
		if err == nil {
			return t, nil
		}
		// Its predecessor may still be ending.
		if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(limit) || ctx.Err() != nil {
			return Target{}, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// alive reports whether the gateway answers.
func alive(ctx context.Context, o Options, t Target) bool {
	c, err := open(o, t)
	if err != nil {
		return false
	}
	defer c.Close()
	return c.answers(ctx)
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
