package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// forwardRecord is one background forward, kept as
// forwards/<workspace>/<sandbox>-<port>.pid: process id, sandbox id and
// address, separated by tabs, as every client of the contract writes it.
type forwardRecord struct {
	Workspace, Sandbox, ID, Bind string
	Port                         uint16
	PID                          int
	path                         string
}

func writeForward(root string, r forwardRecord) error {
	dir := filepath.Join(root, "forwards", r.Workspace)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.New(fault.PermissionDenied, "cannot make %s", dir).Cause(err)
	}
	path := filepath.Join(dir, fmt.Sprintf("%s-%d.pid", r.Sandbox, r.Port))
	if err := os.WriteFile(path+".new", fmt.Appendf(nil, "%d\t%s\t%s", r.PID, r.ID, r.Bind), 0o600); err != nil {
		return fault.New(fault.PermissionDenied, "cannot write %s", path).Cause(err)
	}
	return os.Rename(path+".new", path)
}

// forwards reads the records of this account.
func (a *app) forwards() ([]forwardRecord, error) {
	reg, err := a.registry()
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(reg.Root, "forwards", "*", "*.pid"))
	if err != nil {
		return nil, err
	}
	var out []forwardRecord
	for _, path := range paths {
		body, err := os.ReadFile(path)
		if err != nil || len(body) > 4096 {
			continue
		}
		parts := strings.Split(strings.TrimSpace(string(body)), "\t")
		base := strings.TrimSuffix(filepath.Base(path), ".pid")
		at := strings.LastIndexByte(base, '-')
		if len(parts) != 3 || at < 1 {
			continue
		}
		pid, err1 := strconv.Atoi(parts[0])
		port, err2 := strconv.ParseUint(base[at+1:], 10, 16)
		if err1 != nil || err2 != nil || pid < 2 {
			continue
		}
		out = append(out, forwardRecord{Workspace: filepath.Base(filepath.Dir(path)), Sandbox: base[:at], ID: parts[1], Bind: parts[2], Port: uint16(port), PID: pid, path: path})
	}
	return out, nil
}

// alive reports whether the process is still the forward of that sandbox: its
// environment names the sandbox's id. A process of the same number that is
// somebody else's is never ours to end.
func (r forwardRecord) alive() bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", r.PID))
	if err != nil {
		return false
	}
	want := []byte(ownerVar + "=" + r.ID)
	for kv := range bytes.SplitSeq(env, []byte{0}) {
		if bytes.Equal(kv, want) {
			return true
		}
	}
	return false
}

// end stops the process and removes the record.
func (r forwardRecord) end() error {
	if r.alive() {
		p, err := os.FindProcess(r.PID)
		if err != nil {
			return err
		}
		if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fault.New(fault.PermissionDenied, "stop process %d", r.PID).Cause(err)
		}
		for range 100 { // its listener must be gone when we return
			if !r.alive() {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if r.alive() {
			_ = p.Kill()
		}
	}
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.PermissionDenied, "cannot remove %s", r.path).Cause(err)
	}
	return nil
}

// alreadyForwarded refuses a port that a forward of ours has, and clears away
// records of forwards that have died.
func (a *app) alreadyForwarded(port uint16) error {
	list, err := a.forwards()
	if err != nil {
		return err
	}
	for _, r := range list {
		if r.Port != port {
			continue
		}
		if r.alive() {
			return fault.New(fault.FailedPrecondition, "port %d is already forwarded to sandbox '%s'", port, r.Sandbox).
				Hint("%s forward stop %d %s", brand.CLI, port, r.Sandbox)
		}
		_ = os.Remove(r.path)
	}
	return nil
}

// endForwards stops the forwards of a sandbox that is about to go.
func (a *app) endForwards(workspace, sandbox string) {
	list, err := a.forwards()
	if err != nil {
		return
	}
	for _, r := range list {
		if r.Workspace != workspace || r.Sandbox != sandbox {
			continue
		}
		was := r.alive()
		if r.end() == nil && was {
			a.done(a.stderr, "Stopped forward of port %d for sandbox %s", r.Port, sandbox)
		}
	}
}

func (a *app) forwardStopCommand() *cobra.Command {
	c := &cobra.Command{Use: "stop PORT [NAME]", Short: "Stop a background forward", Args: between(1, 2, "a port")}
	c.RunE = func(_ *cobra.Command, args []string) error {
		_, port, err := parseForward("forward stop", args[0])
		if err != nil {
			return err
		}
		list, err := a.forwards()
		if err != nil {
			return err
		}
		found := false
		for _, r := range list {
			if r.Port != port || len(args) > 1 && r.Sandbox != args[1] {
				continue
			}
			was := r.alive()
			if err := r.end(); err != nil {
				return err
			}
			if was {
				found = true
				a.done(a.stderr, "Stopped forward of port %d for sandbox %s (workspace %s)", port, r.Sandbox, r.Workspace)
			}
		}
		if !found {
			a.mild(a.stderr, "No active forward found for port %d", port)
		}
		return nil
	}
	return c
}

func (a *app) forwardListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List background forwards", Aliases: []string{"ls"}, Args: between(0, 0, "")}
	out := outputFlag(c)
	type view struct {
		Workspace string `json:"workspace"`
		Sandbox   string `json:"sandbox"`
		Bind      string `json:"bind_address"`
		Port      uint16 `json:"port"`
		PID       int    `json:"pid"`
		Alive     bool   `json:"alive"`
	}
	c.RunE = func(*cobra.Command, []string) error {
		list, err := a.forwards()
		if err != nil {
			return err
		}
		views := []view{}
		var lines [][]string
		for _, r := range list {
			alive := r.alive()
			views = append(views, view{r.Workspace, r.Sandbox, r.Bind, r.Port, r.PID, alive})
			status := "running"
			if !alive {
				status = "dead"
			}
			lines = append(lines, []string{r.Workspace, r.Sandbox, r.Bind, strconv.Itoa(int(r.Port)), strconv.Itoa(r.PID), status})
		}
		switch {
		case out.structured():
			return out.print(a.stdout, views)
		case len(views) == 0:
			fmt.Fprintln(a.stderr, "No active forwards.")
			return nil
		}
		return rows(a.stdout, []string{"WORKSPACE", "SANDBOX", "BIND", "PORT", "PID", "STATUS"}, lines)
	}
	return c
}
