package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/client"
	"openshell.dev/openshell/internal/gateways"
)

// gateway measures the kept sandbox: through the API on a warm gateway, and
// through the command line.
func (b *bencher) gateway() error {
	cli := filepath.Join(b.bin, "openshell")
	if out, err := b.command(cli, "sandbox", "create", "--name", "warm", "--detach", "--", "sleep", "100000").CombinedOutput(); err != nil {
		return fmt.Errorf("start a gateway: %w\n%s", err, out)
	}
	defer b.stopGateway()
	os.Setenv("HOME", b.home) //nolint:errcheck // a constant name
	os.Unsetenv("XDG_CONFIG_HOME")
	os.Unsetenv("XDG_STATE_HOME")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	registry, err := gateways.Default()
	if err != nil {
		return err
	}
	c, err := client.Connect(ctx, client.Options{Registry: registry, Workspace: "default"})
	if err != nil {
		return err
	}
	defer c.Close()
	time.Sleep(4 * time.Second) // until idle memory was given back
	supervisors, n := pss(filepath.Join(b.bin, "openshell-supervisor"))

	rows := map[string]*subject{}
	note := func(name string, begin time.Time) {
		if rows[name] == nil {
			rows[name] = &subject{name: name}
		}
		rows[name].took = append(rows[name].took, time.Since(begin))
	}
	for i := range max(b.runs/2, 5) {
		name := "b" + strconv.Itoa(i)
		begin := time.Now()
		if err := create(ctx, c, name); err != nil {
			return err
		}
		note("API create to Ready", begin)
		for range 3 {
			begin = time.Now()
			if err := run(ctx, c, name); err != nil {
				return err
			}
			note("API exec true", begin)
		}
		begin = time.Now()
		if err := remove(ctx, c, name); err != nil {
			return err
		}
		note("API delete to gone", begin)
		for _, words := range [][]string{
			{"create", "--name", name, "--detach", "--", "sleep", "100000"}, {"exec", name, "--", "true"}, {"delete", name},
		} {
			begin = time.Now()
			if out, err := b.command(cli, append([]string{"sandbox"}, words...)...).CombinedOutput(); err != nil {
				return fmt.Errorf("sandbox %s: %w\n%s", words[0], err, out)
			}
			note("command line "+words[0], begin)
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 2, 4, 2, ' ', 0)
	fmt.Fprintln(w, "\nkept sandbox\tmedian\tminimum")
	for _, name := range []string{"API create to Ready", "API exec true", "API delete to gone", "command line create", "command line exec", "command line delete"} {
		fmt.Fprintf(w, "%s\t%.1f ms\t%.1f ms\n", name, ms(rows[name].median()), ms(rows[name].min()))
	}
	fmt.Fprintf(w, "idle sandbox, PSS of supervisor and launcher\t%d KiB\t(%d processes)\n", supervisors, n)
	return w.Flush()
}

func create(ctx context.Context, c *client.Client, name string) error {
	resp, err := c.CreateSandbox(ctx, &openshellv1.CreateSandboxRequest{
		WorkspaceScope: c.Scope(), Name: name, Spec: &openshellv1.SandboxSpec{Command: []string{"sleep", "100000"}},
	})
	if err != nil {
		return err
	}
	for resp.GetSandbox().GetStatus().GetPhase() != openshellv1.SandboxPhase_SANDBOX_PHASE_READY {
		time.Sleep(time.Millisecond)
		sb, err := c.Sandbox(ctx, name)
		if err != nil {
			return err
		}
		resp.Sandbox = sb
	}
	return nil
}

func run(ctx context.Context, c *client.Client, name string) error {
	stream, err := c.ExecSandbox(ctx, &openshellv1.ExecSandboxRequest{WorkspaceScope: c.Scope(), Sandbox: name, Command: []string{"true"}})
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
	}
	if err := stream.Err(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func remove(ctx context.Context, c *client.Client, name string) error {
	if _, err := c.DeleteSandbox(ctx, &openshellv1.DeleteSandboxRequest{WorkspaceScope: c.Scope(), Name: name}); err != nil {
		return err
	}
	for {
		_, err := c.GetSandbox(ctx, &openshellv1.GetSandboxRequest{WorkspaceScope: c.Scope(), Name: name})
		if connect.CodeOf(err) == connect.CodeNotFound || err != nil && strings.Contains(err.Error(), "not found") {
			return nil
		}
		if err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// stopGateway removes the sandbox and ends the private gateway, by its id.
func (b *bencher) stopGateway() {
	_ = b.command(filepath.Join(b.bin, "openshell"), "sandbox", "delete", "--all").Run()
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		line, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		if strings.HasPrefix(string(line), filepath.Join(b.bin, "openshell-gateway")) {
			if pid, err := strconv.Atoi(filepath.Base(d)); err == nil {
				_ = syscall.Kill(pid, syscall.SIGTERM)
			}
		}
	}
	time.Sleep(300 * time.Millisecond)
}
