package seccomp

import "golang.org/x/sys/unix"

const nativeArch = unix.AUDIT_ARCH_AARCH64

// onlyHere adds the calls that only this architecture has: none.
func (t *table) onlyHere() {}
