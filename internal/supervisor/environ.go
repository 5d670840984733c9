package supervisor

import (
	"os/user"
	"slices"
	"strconv"
	"strings"

	"openshell.dev/openshell/internal/brand"
)

// DefaultPath is the search path inside unless something names another.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environ builds the environment of the main process: what every program
// expects, then what the caller asked for. Later entries win; the mark of a
// sandbox cannot be overridden.
func environ(home, shell, userName string, tty bool, added []string) []string {
	term := "dumb"
	if tty {
		term = "xterm-256color"
	}
	base := []string{
		"PATH=" + DefaultPath, "HOME=" + home, "USER=" + userName, "LOGNAME=" + userName,
		"SHELL=" + shell, "TERM=" + term, "LANG=C.UTF-8", "TMPDIR=/tmp",
	}
	return Merge(base, added, []string{brand.Env("SANDBOX") + "=1"})
}

// Merge joins environments; of one name the last entry stays, at the place of
// the first.
func Merge(layers ...[]string) []string {
	var out []string
	at := map[string]int{}
	for _, layer := range layers {
		for _, kv := range layer {
			name, _, ok := strings.Cut(kv, "=")
			if !ok || name == "" {
				continue
			}
			if i, seen := at[name]; seen {
				out[i] = kv
				continue
			}
			at[name] = len(out)
			out = append(out, kv)
		}
	}
	return slices.Clip(out)
}

// userName is the caller's account name, or sandbox when root or unknown:
// inside, nobody is root.
func userName(uid int) string {
	if uid == 0 {
		return "sandbox"
	}
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil && u.Username != "" {
		return u.Username
	}
	return "sandbox"
}
