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

// What programs ask of a system beyond files: terminals, shared memory,
// semaphores, temporary files, processors, users, time zones, compilers.
func TestOrdinaryProgramsWork(t *testing.T) {
	eachUser(t, func(t *testing.T) {
		work, state := place(t)
		v := build(t, Spec{State: state, Workdir: work})
		for name, script := range map[string]string{
			"python3": `import multiprocessing as m, os, pty, pwd, tempfile, time, sys
lock = m.Lock(); q = m.Queue(); p = m.Process(target=q.put, args=(7,)); p.start(); assert q.get() == 7; p.join()
assert pty.spawn(["/bin/true"]) == 0; assert pwd.getpwuid(os.getuid()).pw_dir == os.path.expanduser("~")
tempfile.TemporaryFile().write(b"x"); assert os.cpu_count() > 0; time.localtime()
from multiprocessing import shared_memory as s; x = s.SharedMemory(create=True, size=4096); x.close(); x.unlink(); print("ok")`,
			"node": `const os=require("os"),fs=require("fs"); if(!os.cpus().length||!os.totalmem()||os.userInfo().username!="sandbox") throw 1; os.networkInterfaces(); fs.writeFileSync(os.tmpdir()+"/x","y"); require("child_process").execSync("true"); console.log("ok")`,
			"perl": `use POSIX; my $n = POSIX::ttyname(0); print "ok\n" if getpwuid($<)`,
		} {
			flag := "-e"
			if name == "python3" {
				flag = "-c"
			}
			out := sh(t, v, "p=/usr/bin/"+name+"; [ -x $p ] || { echo ok; exit; }; exec $p "+flag+" '"+script+"'")
			if !strings.HasSuffix(out, "ok\n") {
				t.Errorf("%s: %s", name, out)
			}
		}
		out := sh(t, v, `set -e; mktemp >/dev/null; df . >/dev/null; date >/dev/null; head -c1 /dev/urandom >/dev/null; id -gn; echo a | cat /dev/stdin; exec 3>&1; echo b >/dev/fd/3; test -w /dev/stdout; (stty -a </dev/tty) 2>&1 | grep -c 'No such device'; cat <<X
c
X
			p=/usr/local/go/bin/go; if [ -x $p ]; then mkdir m; cd m; echo 'package main; func main() { println("ok") }' > m.go; $p mod init m 2>/dev/null; $p list . >/dev/null; fi; echo d`)
		wantLines(t, out, "sandbox", "a", "b", "1", "c", "d")
	})
}
