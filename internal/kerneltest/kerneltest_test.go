package kerneltest

import (
	"os"
	"syscall"
	"testing"
)

func TestTheChildIsAsDescribed(t *testing.T) {
	Require(t, UserNS)
	Child{Ordinary: true, Clone: syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID, InsideID: 7}.Run(t, func(t *testing.T) {
		if got := os.Getuid(); got != 7 {
			t.Errorf("uid = %d, want 7", got)
		}
		if got := os.Getpid(); got != 1 {
			t.Errorf("pid = %d, want 1", got)
		}
	})
}

func TestAnOrdinaryChildHasNoPrivilege(t *testing.T) {
	Child{Ordinary: true}.Run(t, func(t *testing.T) {
		if os.Getuid() == 0 {
			t.Error("still root")
		}
	})
}
