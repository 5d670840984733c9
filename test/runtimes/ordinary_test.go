package runtimes

import (
	"testing"

	"openshell.dev/openshell/test/fetched"
)

// TestOrdinaryProgramsBehaveAsOutside is a set of things that programs do and
// that sandboxes are known to break.
func TestOrdinaryProgramsBehaveAsOutside(t *testing.T) {
	node := fetched.NodeBin(t, 24)
	for _, w := range []work{
		{name: "pipelines and jobs", script: `seq 1 2000 | sort -rn | head -3 | tac | paste -sd,
			set -m; sleep 30 & kill %1; wait %1 || echo $?; (exit 3) | (exit 4) || echo "${PIPESTATUS[*]}"
			coproc cat; echo hi >&${COPROC[1]}; read -r l <&${COPROC[0]}; echo $l; cat <(echo a) <(echo b); echo x | tee >(cat >/dev/null)
			mkfifo f; echo through > f & cat f; wait; rm f; trap 'echo caught' USR1; kill -USR1 $$; diff <(echo 1) <(echo 2) || true; yes | head -c 1000000 | wc -c`},
		{name: "groups, sessions and priorities", script: `set -m; (trap 'echo ended; exit 0' TERM; sleep 30 & wait) & sleep 0.2; kill -TERM -- -$!; wait $! || true; set +m
			setsid sh -c 'test $(ps -o sid= -p $$) -eq $$ && echo session'; nice -n 5 nice; nice -n 19 sh -c 'renice -n 19 $$ >/dev/null && nice'; timeout 0.2 sleep 5 || echo $?
			nohup true 2>/dev/null && echo nohup; taskset -p $$ >/dev/null && echo taskset; ionice -c 3 true && echo ionice; ulimit -n 64 && ulimit -n; chrt -b 0 true && echo batch`},
		{name: "files", script: `mkdir -p d/e; seq 1 100 > d/e/n; ln -s e/n d/link; ln d/e/n d/hard; chmod 640 d/e/n; touch -d 2020-01-01 d/old
			tar czf t.tgz d; rm -r d; tar xzf t.tgz; find d -newermt 2019-01-01 -type f | sort; stat -c '%a %h' d/hard; cp -a d c; mv c m; diff -r d m
			split -l 40 d/e/n part.; wc -l part.*; sort -R d/e/n | sort -n | md5sum; cp --sparse=always /dev/zero s 2>/dev/null & sleep 0; kill $! 2>/dev/null; wait || true; rm -f s
			truncate -s 10M big; fallocate -l 1M fa; dd if=/dev/zero of=dd bs=64k count=4 status=none conv=fsync; stat -c %s big fa dd; rm big fa dd t.tgz; rm -r m; flock lock echo locked; sync; readlink -f d/link | sed "s,$PWD,,"; mktemp -u x.XXXX | wc -c
			umask 077; echo p > private; stat -c %a private; chmod 755 private; setfattr -n user.x -v y private 2>/dev/null; getfattr -n user.x --only-values private 2>/dev/null || true; test -w /etc/passwd && echo root >/dev/null; true`},
		{name: "sqlite", needs: []string{"sqlite3"}, script: `sqlite3 db 'pragma journal_mode=wal; create table t(a); insert into t values(1),(2); select sum(a) from t'
			python3 -c 'import sqlite3,os
c=sqlite3.connect("db"); c.execute("insert into t values(3)"); c.commit(); print(c.execute("select count(*) from t").fetchone())
d=sqlite3.connect(":memory:"); print(d.execute("select sqlite_version() is not null").fetchone())'; sqlite3 db 'pragma journal_mode=delete' ; rm db`},
		{name: "python processes", script: `cat > mp.py <<'E'
import multiprocessing as m, os, sys, threading, concurrent.futures as f, asyncio, signal, select, socket, mmap, tempfile, time, fcntl, resource, ctypes, pty, subprocess
from multiprocessing import shared_memory
def sq(x): return x*x
def put(q, l, v):
    with l: v.value += 1
    q.put(os.getpid() != os.getppid())
async def aio():
    p = await asyncio.create_subprocess_exec('echo', 'async', stdout=-1)
    print((await p.communicate())[0].decode().strip())
    s = await asyncio.start_server(lambda r, w: w.close(), '127.0.0.1', 0)
    r, w = await asyncio.open_connection(*s.sockets[0].getsockname()); await r.read(); w.close(); s.close()
if __name__ == '__main__':
    for how in ('fork', 'spawn', 'forkserver'):
        c = m.get_context(how)
        with c.Pool(3) as p: print(how, sum(p.map(sq, range(100))))
        q, l, v = c.Queue(), c.Lock(), c.Value('i', 0)
        ps = [c.Process(target=put, args=(q, l, v)) for _ in range(4)]
        [p.start() for p in ps]; print([q.get() for _ in ps]); [p.join() for p in ps]; print(v.value)
    s = shared_memory.SharedMemory(create=True, size=4096); s.buf[0] = 7; t = shared_memory.SharedMemory(s.name); print(t.buf[0]); t.close(); s.close(); s.unlink()
    with f.ProcessPoolExecutor(2) as e: print(list(e.map(sq, range(5))))
    with f.ThreadPoolExecutor(8) as e: print(sum(e.map(sq, range(50))))
    asyncio.run(aio())
    fd = os.memfd_create('x', os.MFD_ALLOW_SEALING); os.write(fd, b'memory'); fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    try: os.write(fd, b'x')
    except PermissionError: print('sealed')
    print(open(f'/proc/self/fd/{fd}').read())
    pid = os.fork()
    if pid == 0: time.sleep(30)
    p = os.pidfd_open(pid); signal.pidfd_send_signal(p, signal.SIGKILL); print(select.select([p], [], [], 5)[0] == [p], os.waitpid(pid, 0)[1])
    signal.setitimer(signal.ITIMER_REAL, 0.05); signal.signal(signal.SIGALRM, lambda *a: print('alarm')); signal.pause()
    e = select.epoll(); a, b = socket.socketpair(); e.register(b, select.EPOLLIN); a.send(b'x'); print(e.poll(5)[0][1] == select.EPOLLIN)
    libc = ctypes.CDLL(None, use_errno=True)
    i = libc.inotify_init1(0); print(libc.inotify_add_watch(i, b'.', 0x100) >= 0); open('watched', 'w').close(); print(b'watched' in os.read(i, 4096))
    t = libc.timerfd_create(1, 0); ev = libc.eventfd(3, 0); print(t >= 0, os.read(ev, 8)[0])
    sig = (ctypes.c_ulong * 16)(); print(libc.signalfd(-1, sig, 8) >= 0)
    mm = mmap.mmap(-1, 1 << 20, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC); mm[0] = 1; print(len(mm))
    r, w = socket.socketpair(); socket.send_fds(r, [b'f'], [1]); print(len(socket.recv_fds(w, 1, 1)[1]))
    print(resource.getrlimit(resource.RLIMIT_CORE)[0] >= 0, os.cpu_count() > 0, len(os.sched_getaffinity(0)) > 0)
    m_, s_ = pty.openpty(); subprocess.run(['tty'], stdin=s_, stdout=subprocess.DEVNULL, check=True); print(os.ttyname(s_).startswith('/dev/pts/'))
    u = socket.socket(socket.AF_UNIX); u.bind('sock'); u.listen(); c = socket.socket(socket.AF_UNIX); c.connect('sock'); print('unix'); os.unlink('sock')
    x = socket.socket(socket.AF_UNIX); x.bind('\0abstract-%d' % os.getpid()); print('abstract')
    v6 = socket.create_server(('::1', 0), family=socket.AF_INET6); socket.create_connection(v6.getsockname()[:2]).close(); print('v6')
    ud = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); ud.bind(('127.0.0.1', 0)); ud.sendto(b'd', ud.getsockname()); print(ud.recv(9))
    print(socket.gethostbyname('localhost'), socket.getaddrinfo('127.0.0.1', 80)[0][4])
    print(libc.semget(0, 1, 0o600) >= 0, libc.shmget(0, 4096, 0o600) >= 0, libc.msgget(0, 0o600) >= 0)
E
			python3 mp.py`},
		{name: "node", script: `export PATH=` + node + `:$PATH; cat > n.mjs <<'E'
import { Worker, isMainThread, parentPort } from "node:worker_threads";
import { execFileSync, spawn, fork } from "node:child_process";
import fs from "node:fs"; import http from "node:http"; import os from "node:os"; import net from "node:net"; import dns from "node:dns/promises"; import crypto from "node:crypto";
const w = new Worker("require('worker_threads').parentPort.postMessage(6*7)", { eval: true });
console.log(await new Promise((r) => w.on("message", r)));
console.log(execFileSync("echo", ["child"]).toString().trim());
const c = spawn("sh", ["-c", "kill -TERM $$"]); console.log(await new Promise((r) => c.on("exit", (...a) => r(a))));
const d = spawn("sleep", ["30"], { detached: true }); process.kill(-d.pid, "SIGKILL"); console.log(await new Promise((r) => d.on("exit", (...a) => r(a))));
fs.writeFileSync("f.cjs", "process.on('message', m => { process.send(m + 1); process.disconnect(); })");
const k = fork("./f.cjs"); k.send(1); console.log(await new Promise((r) => k.on("message", r)));
const seen = new Promise((r) => { const x = fs.watch(".", (e, f) => f === "w" && (x.close(), r(f))); }); fs.writeFileSync("w", ""); console.log(await seen);
const s = http.createServer((q, a) => a.end("served")).listen(0, "localhost"); await new Promise((r) => s.on("listening", r));
console.log(await (await fetch("http://localhost:" + s.address().port)).text()); s.close(); s.closeAllConnections();
const u = net.createServer((x) => x.end("unix")).listen("u.sock"); await new Promise((r) => u.on("listening", r)); net.connect("u.sock").on("data", (b) => (console.log(b.toString()), u.close()));
console.log((await dns.lookup("localhost")).address, os.cpus().length > 0, os.totalmem() > 0, os.userInfo().uid === process.getuid(), os.hostname().length > 0, crypto.randomBytes(4).length);
console.log(await import("data:text/javascript,export default 5").then((m) => m.default), (await WebAssembly.instantiate(new Uint8Array([0,97,115,109,1,0,0,0]))).module.constructor.name);
process.setUncaughtExceptionCaptureCallback(null); setTimeout(() => console.log("timer"), 5); console.log(os.setPriority(5), os.getPriority());
E
			node n.mjs; node --permission --allow-fs-read='*' -e 'console.log(1)'; node --test --test-reporter=dot /dev/null >/dev/null; node --cpu-prof --cpu-prof-dir=prof -e 0; ls prof | wc -l; rm -r prof; echo 'console.log("stdin")' | node -; node --jitless -p 1`},
		{name: "perl and awk", needs: []string{"perl"}, script: `perl -MPOSIX -MSocket -MIO::Select -e 'my $p = fork; if (!$p) { exec "true" } waitpid $p, 0; print $?, "\n"; socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, 0) or die; syswrite $a, "x"; print IO::Select->new($b)->can_read(1) ? 1 : 0, "\n"; print getpwuid($<) ? "named\n" : "named\n"; local $SIG{ALRM} = sub { print "alarm\n" }; alarm 1; pause; print -e "/proc/$$/stat" ? 1 : 0, "\n"; open my $f, "-|", "ls", "-d", "/" or die; print <$f>'
			awk 'BEGIN { "echo from" | getline x; print x; print strftime("%Y", 0, 1); "date +%Y" | getline y; print (y > 2000) }'; bc <<< 2^64 2>/dev/null || true; printf 'a\nb\n' | xargs -P 4 -I{} echo {} | sort; locale | head -1; date -u -d @0; TZ=Europe/Berlin date -d @0 +%Z; id -un >/dev/null; getent hosts localhost | awk '{print $2}'; python3 -c 'import zoneinfo; print(zoneinfo.ZoneInfo("Asia/Tokyo"))'`},
		{name: "what programs ask of the system", script: `test -r /proc/cpuinfo; test -r /proc/meminfo; test -r /proc/self/maps; test -c /dev/null; test -d /dev/shm; echo x > /dev/shm/t; cat /dev/shm/t; rm /dev/shm/t; ls -l /proc/self/fd >/dev/null; cat /proc/loadavg | wc -w; uptime >/dev/null; free >/dev/null; df . >/dev/null; ps aux >/dev/null; nproc; uname -s; hostname >/dev/null; head -c 4 /dev/urandom | wc -c; echo ok > /dev/stdout; : > /dev/null; cat /etc/os-release | head -1; getconf PAGE_SIZE; tty || true; stty -a 2>/dev/null || true; which sh; cat /proc/sys/kernel/pid_max >/dev/null; cat /sys/devices/system/cpu/online >/dev/null; script -qc 'echo in a terminal; tty | cut -c1-8' /dev/null; stat -f -c %T /tmp >/dev/null; ls / >/dev/null; lscpu >/dev/null; dmesg >/dev/null 2>&1 || true`},
	} {
		w.loose = true
		t.Run(w.name, func(t *testing.T) { asOutside(t, []string{node}, "", w) })
	}
}
