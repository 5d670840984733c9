// Command fetch gets the programs that the tests in test/runtimes run inside
// a sandbox: go run ./test/runtimes/fetch [DIR].
//
// It uses the package clients of the machine (npm, pip, and apt-get where the
// account is root) and asks for nothing that is there already. Without DIR it
// fills the directory in which the tests look.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"openshell.dev/openshell/test/fetched"
)

func main() {
	dir, err := fetched.Dir()
	if len(os.Args) > 1 {
		dir, err = os.Args[1], nil
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		err = fetched.Get(ctx, dir, os.Stderr)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(dir)
}
