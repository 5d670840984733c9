// Command interfaces prints every interface and address that Go lists. With
// an argument, the process first makes itself not dumpable.
package main

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

func main() {
	if len(os.Args) > 1 {
		if _, _, errno := syscall.Syscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0); errno != 0 {
			fail(errno)
		}
		if now, _, errno := syscall.Syscall(syscall.SYS_PRCTL, syscall.PR_GET_DUMPABLE, 0, 0); now != 0 || errno != 0 {
			fail(fmt.Errorf("still dumpable: %d, %v", now, errno))
		}
	}
	all, err := net.Interfaces()
	if err != nil {
		fail(err)
	}
	for _, i := range all {
		fmt.Println(i.Name)
		addrs, err := i.Addrs()
		if err != nil {
			fail(err)
		}
		for _, a := range addrs {
			ip, _, err := net.ParseCIDR(a.String())
			if err != nil {
				fail(err)
			}
			fmt.Println(i.Name, ip)
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
