// Command openshell runs agents in sandboxes.
//
// `openshell run` is served here, by a program that starts in little more
// than a millisecond; every other command is served by its sibling, which
// links the control plane's client and replaces this process.
package main

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/runcmd"
	"openshell.dev/openshell/internal/sibling"
	"openshell.dev/openshell/internal/supervisor"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "run" {
		os.Exit(runcmd.Main(context.Background(), os.Args[2:], handOver))
	}
	os.Exit(client())
}

// handOver lets the sibling serve a run whose files come from an image.
func handOver(context.Context, string, *supervisor.Spec) error { return become() }

// client becomes the sibling that serves every other command.
func client() int {
	runcmd.Complain(os.Stderr, become())
	return 1
}

// become replaces this process with the sibling; it returns only an error.
func become() error {
	path, err := sibling.Find(brand.Client)
	if err != nil {
		return err
	}
	err = syscall.Exec(path, append([]string{brand.CLI}, os.Args[1:]...), os.Environ())
	return fmt.Errorf("start %s: %w", path, err)
}
