package view

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestAProgramRunsInTheHostView(t *testing.T) {
	eachUser(t, func(t *testing.T) {
		work, state := place(t)
		write(t, work+"/in.txt", "hello\n")
		v := build(t, Spec{State: state, Workdir: work, Home: "/home/ann", Who: Identity{User: "ann"}})
		wantLines(t, sh(t, v, `
			pwd; id -u; id -un; cat in.txt; echo out > out.txt
			echo $HOME; touch ~/x && echo home writable
			cat /etc/hostname; grep -c daemon /etc/passwd; cat /etc/resolv.conf | grep -v '#'
			touch /usr/x /etc/x /x /dev/x /var/log/x 2>/dev/null; ls -d /usr/x /etc/x /x /dev/x /var/log/x 2>/dev/null
			touch /tmp/t /var/tmp/u /dev/shm/s && ls /tmp | grep -v ^Test
			echo lost > /dev/null; head -c 3 /dev/zero | wc -c
			ls /proc | grep -c '^[0-9]'
			cat /proc/cpuinfo /proc/meminfo /proc/stat /proc/loadavg /proc/uptime /proc/version /proc/self/status > /dev/null && echo proc
			grep CapEff /proc/self/status; cat /proc/sys/kernel/ostype; nproc > /dev/null && echo cpus
			for d in /proc/1/root /proc/self/root; do ls $d/work 2>&1; done | grep -v 'No such'
		`), work, fmt.Sprint(os.Getuid()), "ann", "hello", "/home/ann", "home writable", "sandbox", "0", "nameserver 10.200.0.1",
			"t", "u", "3", "3", "proc", "CapEff:\t0000000000000000", "Linux", "cpus")
		if got := read(t, work+"/out.txt"); got != "out\n" {
			t.Errorf("out.txt = %q", got)
		}
	})
}

// Whatever is at the top of the tree, in /dev, in /run, or mounted, is in this list.
func TestNothingElseIsVisible(t *testing.T) {
	eachUser(t, func(t *testing.T) {
		work, state := place(t)
		v := build(t, Spec{State: state, Workdir: work, Home: "/home/ann"})
		got := sh(t, v, `ls -A / | tr '\n' ' '; echo; ls -A /dev | tr '\n' ' '; echo; find /run /var /sys -maxdepth 1 | sort | tr '\n' ' '; echo; ls -A /tmp /home /dev/shm | tr '\n' ' '`)
		lines := strings.Split(got, "\n")
		for _, name := range strings.Fields(lines[0]) {
			switch name {
			case "bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "opt", "etc", "nix", "gnu", "dev", "proc", "sys", "tmp", "run", "var", "home":
			default:
				t.Errorf("/%s is visible", name)
			}
		}
		if want := "core fd full null ptmx pts random shm stderr stdin stdout tty urandom zero "; lines[1] != want {
			t.Errorf("/dev: %q, want %q", lines[1], want)
		}
		if want := "/run /run/lock /run/user /sys /sys/devices /var /var/cache /var/lib /var/lock /var/log /var/run /var/tmp "; lines[2] != want {
			t.Errorf("got %q\nwant %q", lines[2], want)
		}
		top := strings.Split(work, "/")[2]
		if want := "/dev/shm:  /home: ann  /tmp: " + top + " "; lines[3] != want {
			t.Errorf("got %q\nwant %q", lines[3], want)
		}
	})
}
