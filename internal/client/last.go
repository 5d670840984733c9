package client

import (
	"os"
	"path/filepath"
	"strings"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// LastSandbox returns the sandbox last used with this gateway and workspace,
// or the empty string.
func (c *Client) LastSandbox() string {
	body, err := os.ReadFile(c.lastPath())
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(body), "\n"), "\n")
	if len(lines) != 2 || lines[0] != c.Workspace {
		return "" // another workspace, or the old one-line form
	}
	return strings.TrimSpace(lines[1])
}

// Remember makes name the sandbox last used. That it could not be written is
// no reason to stop anything.
func (c *Client) Remember(name string) {
	path := c.lastPath()
	if os.MkdirAll(filepath.Dir(path), 0o700) != nil {
		return
	}
	tmp := path + ".new"
	if os.WriteFile(tmp, []byte(c.Workspace+"\n"+name+"\n"), 0o600) == nil {
		_ = os.Rename(tmp, path)
	}
}

// Forget clears the last used sandbox if it is name.
func (c *Client) Forget(name string) {
	if c.LastSandbox() == name {
		_ = os.Remove(c.lastPath())
	}
}

// Choose returns name, or the sandbox last used. It reports whether it chose.
func (c *Client) Choose(name string) (string, bool, error) {
	if name != "" {
		return name, false, nil
	}
	if last := c.LastSandbox(); last != "" {
		return last, true, nil
	}
	return "", false, fault.New(fault.InvalidArgument, "no sandbox name provided and no last-used sandbox").
		Hint("%s sandbox list, then name one: %s sandbox connect NAME", brand.CLI, brand.CLI)
}

func (c *Client) lastPath() string {
	name := c.Target.Name
	safe := strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || r == 0 {
			return '_'
		}
		return r
	}, name)
	return filepath.Join(c.registry.Root, "gateways", safe, "last_sandbox")
}
