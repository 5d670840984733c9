package runtimes

import (
	"os"
	"testing"

	"openshell.dev/openshell/test/fetched"
)

// TestOrdinaryProgramsBehaveAsOutside is a set of things that programs do and
// that sandboxes are known to break.
func TestOrdinaryProgramsBehaveAsOutside(t *testing.T) {
	node := fetched.NodeBin(t, 24)
	for _, w := range []work{
		{name: "pipelines and jobs", script: `
seq 1 2000 | sort -rn | head -3 | tac | paste -sd,
set -m; sleep 30 & kill %1; wait %1 || echo $?
(exit 3) | (exit 4) || echo "${PIPESTATUS[*]}"
coproc cat; echo hi >&${COPROC[1]}; read -r l <&${COPROC[0]}; echo $l; kill $COPROC_PID; wait $COPROC_PID || true
cat <(echo a) <(echo b); echo x | tee >(cat >/dev/null)
mkfifo f; echo through > f & cat f; wait $!; rm f
trap 'echo caught' USR1; kill -USR1 $$
diff <(echo 1) <(echo 2) || true
yes | head -c 1000000 | wc -c
`},
		{name: "groups, sessions and priorities", script: `
set -m
(trap 'echo ended; exit 0' TERM; echo ready > ready; while :; do sleep 0.05; done) &
while ! test -s ready; do sleep 0.02; done
kill -TERM -- -$!; wait $!
set +m
setsid sh -c 'test $(ps -o sid= -p $$) -eq $$ && echo session'
nice -n 5 nice; nice -n 19 sh -c 'renice -n 19 $$ >/dev/null && nice'
timeout 0.2 sleep 5 || echo $?
nohup true 2>/dev/null && echo nohup
taskset -p $$ >/dev/null && echo taskset; ionice -c 3 true && echo ionice; chrt -b 0 true && echo batch
ulimit -n 64; ulimit -n
`},
		{name: "files", script: `
mkdir -p d/e; seq 1 100 > d/e/n; ln -s e/n d/link; ln d/e/n d/hard; chmod 640 d/e/n; touch -d 2020-01-01 d/old
tar czf t.tgz d; rm -r d; tar xzf t.tgz
find d -newermt 2019-01-01 -type f | sort; stat -c '%a %h' d/hard; readlink -f d/link | sed "s,$PWD,,"
cp -a d c; mv c m; diff -r d m; cp --sparse=always d/e/n s; split -l 40 d/e/n part.; wc -l part.*
sort -R d/e/n | sort -n | md5sum
truncate -s 10M big; fallocate -l 1M fa; dd if=/dev/zero of=dd bs=64k count=4 status=none conv=fsync; stat -c %s big fa dd
rm big fa dd t.tgz s; rm -r m
flock lock echo locked; sync
umask 077; echo p > private; stat -c %a private; chmod 755 private
python3 -c 'import os; os.setxattr("private", "user.x", b"y"); print(os.getxattr("private", "user.x"))'
echo t > /dev/shm/$$; cat /dev/shm/$$; rm /dev/shm/$$
`},
		{name: "sqlite", needs: []string{"sqlite3"}, script: `
sqlite3 db 'pragma journal_mode=wal; create table t(a); insert into t values(1),(2); select sum(a) from t'
python3 -c '
import sqlite3
c = sqlite3.connect("db"); c.execute("insert into t values(3)"); c.commit()
print(c.execute("select count(*) from t").fetchone())'
sqlite3 db 'pragma journal_mode=delete'; rm db
`},
		{name: "python", files: program(t, "processes.py"), script: `
python3 processes.py
python3 -c 'import zoneinfo; print(zoneinfo.ZoneInfo("Asia/Tokyo"))'
`},
		{name: "node", files: program(t, "processes.mjs"), script: `
PATH=` + node + `:$PATH
node processes.mjs
node --permission --allow-fs-read='*' -p 1
node --cpu-prof --cpu-prof-dir=prof -e 0; ls prof | wc -l; rm -r prof
echo 'console.log("stdin")' | node -
node --jitless -p 2
`},
		{name: "perl and awk", needs: []string{"perl"}, script: `
perl -MPOSIX -MSocket -MIO::Select -e '
	my $p = fork; exec "true" if !$p; waitpid $p, 0; print $?, "\n";
	socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, 0) or die; syswrite $a, "x"; print IO::Select->new($b)->can_read(1) ? 1 : 0, "\n";
	local $SIG{ALRM} = sub { print "alarm\n" }; alarm 1; pause;
	open my $f, "-|", "ls", "-d", "/" or die; print <$f>'
awk 'BEGIN { "echo from" | getline x; print x; "date +%Y" | getline y; print (y > 2000) }'
printf 'a\nb\n' | xargs -P 4 -I{} echo {} | sort
date -u -d @0; TZ=Europe/Berlin date -d @0 +%Z
getent hosts localhost | awk '{print $2}'
`},
		{name: "what programs ask of the system", script: `
test -r /proc/cpuinfo; test -r /proc/meminfo; test -r /proc/self/maps; test -c /dev/null; test -d /dev/shm
ls -l /proc/self/fd >/dev/null; uptime >/dev/null; free >/dev/null; df . >/dev/null; ps aux >/dev/null; lscpu >/dev/null; ls / >/dev/null
cat /proc/loadavg | wc -w; cat /proc/sys/kernel/pid_max >/dev/null; cat /sys/devices/system/cpu/online
nproc; uname -s; hostname >/dev/null; head -c 4 /dev/urandom | wc -c; getconf PAGE_SIZE; head -1 /etc/os-release
cat /dev/stdin; cat < /dev/stdin; : > /dev/null; tty || true
script -qc 'echo in a terminal; tty | cut -c1-8' /dev/null
`},
	} {
		w.loose = true
		t.Run(w.name, func(t *testing.T) { asOutside(t, []string{node}, "", w) })
	}
}

// program is a file of testdata as a file of the workspace.
func program(t *testing.T, name string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(testdata(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{name: string(data)}
}
