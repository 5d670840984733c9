// Command openshell-client is the part of `openshell` that talks to a
// gateway. The front becomes this program for every command but run.
package main

import (
	"context"
	"os"

	"openshell.dev/openshell/internal/cli"
)

func main() { os.Exit(cli.Main(context.Background(), os.Args[1:])) }
