package seccomp

import (
	"encoding/binary"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"openshell.dev/openshell/internal/kerneltest"
)

// program32 is a 32-bit ELF file of one segment with the given code.
func program32(code []byte) []byte {
	const base, header = 0x08048000, 52 + 32
	b := []byte{0x7f, 'E', 'L', 'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	le := binary.LittleEndian
	for _, v := range []uint16{2, 3} { // executable, i386
		b = le.AppendUint16(b, v)
	}
	for _, v := range []uint32{1, base + header, 52, 0, 0} { // version, entry, program headers at 52
		b = le.AppendUint32(b, v)
	}
	for _, v := range []uint16{52, 32, 1, 40, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	size := uint32(header + len(code))
	for _, v := range []uint32{1, 0, base, base, size, size, 5, 0x1000} { // PT_LOAD, r-x
		b = le.AppendUint32(b, v)
	}
	return append(b, code...)
}

func TestA32BitProgramIsEnded(t *testing.T) {
	kerneltest.Require(t, kerneltest.Seccomp)
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		path := t.TempDir() + "/exit42"
		code := []byte{0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80} // exit(42) by int 0x80
		if err := os.WriteFile(path, program32(code), 0o700); err != nil {
			t.Fatal(err)
		}
		run := func() syscall.WaitStatus {
			cmd := exec.Command(path)
			if err := cmd.Run(); cmd.ProcessState == nil {
				t.Skipf("needs a kernel that runs 32-bit programs: %v", err)
			}
			return cmd.ProcessState.Sys().(syscall.WaitStatus)
		}
		if ws := run(); ws.ExitStatus() != 42 {
			t.Fatalf("without the filter: %v", ws)
		}
		install(t)
		if ws := run(); !ws.Signaled() || ws.Signal() != unix.SIGSYS {
			t.Errorf("with the filter: exit %d, signal %v, want SIGSYS", ws.ExitStatus(), ws.Signal())
		}
	})
}
