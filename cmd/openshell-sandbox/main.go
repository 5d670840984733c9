// Command openshell-sandbox is the inside half of a sandbox: pid 1.
package main

import (
	"os"

	"openshell.dev/openshell/internal/launch"
)

func main() { os.Exit(launch.Main()) }
