package image

import (
	"fmt"
	"io/fs"
	"syscall"
)

// links describes the link count and owner of a file. Directories are left
// out: unpacking adds no subdirectory outside.
func links(info fs.FileInfo) string {
	st := info.Sys().(*syscall.Stat_t)
	if info.IsDir() {
		return ""
	}
	return fmt.Sprintf("links=%d owner=%d size=%d", st.Nlink, st.Uid, st.Size)
}
