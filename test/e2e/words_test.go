package e2e

import (
	"os"
	"strconv"
	"sync/atomic"
)

var marks atomic.Int64

// unique is a number of seconds that no other process of this machine sleeps.
func unique() string {
	return strconv.Itoa(100000+os.Getpid()) + "." + strconv.FormatInt(marks.Add(1), 10)
}

func itoa(n int) string { return strconv.Itoa(n) }

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
