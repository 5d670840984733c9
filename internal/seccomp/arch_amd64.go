package seccomp

import "golang.org/x/sys/unix"

const nativeArch = unix.AUDIT_ARCH_X86_64

// onlyHere adds the calls that only this architecture has.
func (t *table) onlyHere() {
	t.deny(unix.EPERM, "reaches the hardware's ports", call{"iopl", unix.SYS_IOPL}, call{"ioperm", unix.SYS_IOPERM})
	t.deny(unix.ENOSYS, "16-bit segments; only 32-bit emulators used it, and they cannot run here", call{"modify_ldt", unix.SYS_MODIFY_LDT})
	t.deny(unix.ENOSYS, "maps a library the way of 1993; kernels are built without it", call{"uselib", unix.SYS_USELIB})
	t.deny(unix.ENOSYS, "removed from kernels, by number only",
		call{"create_module", unix.SYS_CREATE_MODULE}, call{"get_kernel_syms", unix.SYS_GET_KERNEL_SYMS},
		call{"query_module", unix.SYS_QUERY_MODULE}, call{"_sysctl", unix.SYS__SYSCTL})
}
