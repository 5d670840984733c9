"""What Python programs ask of a system. Prints what worked."""
import asyncio
import concurrent.futures as futures
import ctypes
import fcntl
import mmap
import multiprocessing as m
import os
import pty
import resource
import select
import signal
import socket
import subprocess
import time
from multiprocessing import shared_memory


def square(x):
    return x * x


def put(queue, lock, value):
    with lock:
        value.value += 1
    queue.put(os.getpid() != os.getppid())


def processes():
    for how in ("fork", "spawn", "forkserver"):
        c = m.get_context(how)
        with c.Pool(3) as pool:
            print(how, sum(pool.map(square, range(100))))
        queue, lock, value = c.Queue(), c.Lock(), c.Value("i", 0)
        children = [c.Process(target=put, args=(queue, lock, value)) for _ in range(4)]
        for child in children:
            child.start()
        print([queue.get() for _ in children])
        for child in children:
            child.join()
        print(value.value)
    s = shared_memory.SharedMemory(create=True, size=4096)
    s.buf[0] = 7
    t = shared_memory.SharedMemory(s.name)
    print(t.buf[0])
    t.close()
    s.close()
    s.unlink()
    with futures.ProcessPoolExecutor(2) as e:
        print(list(e.map(square, range(5))))
    with futures.ThreadPoolExecutor(8) as e:
        print(sum(e.map(square, range(50))))


async def loop():
    p = await asyncio.create_subprocess_exec("echo", "async", stdout=subprocess.PIPE)
    print((await p.communicate())[0].decode().strip())
    s = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    r, w = await asyncio.open_connection(*s.sockets[0].getsockname())
    await r.read()
    w.close()
    s.close()


def descriptors():
    fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.write(fd, b"memory")
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    try:
        os.write(fd, b"x")
    except PermissionError:
        print("sealed")
    print(open(f"/proc/self/fd/{fd}").read())
    e = select.epoll()
    a, b = socket.socketpair()
    e.register(b, select.EPOLLIN)
    a.send(b"x")
    print(e.poll(5)[0][1] == select.EPOLLIN)
    libc = ctypes.CDLL(None, use_errno=True)
    i = libc.inotify_init1(0)
    print(libc.inotify_add_watch(i, b".", 0x100) >= 0)
    open("watched", "w").close()
    print(b"watched" in os.read(i, 4096))
    timer, event = libc.timerfd_create(1, 0), libc.eventfd(3, 0)
    print(timer >= 0, os.read(event, 8)[0])
    print(libc.signalfd(-1, (ctypes.c_ulong * 16)(), 8) >= 0)
    memory = mmap.mmap(-1, 1 << 20, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory[0] = 1
    print(len(memory))
    socket.send_fds(a, [b"f"], [1])
    b.recv(1)
    print(len(socket.recv_fds(b, 1, 1)[1]))
    terminal, side = pty.openpty()
    subprocess.run(["tty"], stdin=side, stdout=subprocess.DEVNULL, check=True)
    print(os.ttyname(side).startswith("/dev/pts/"))
    print(libc.semget(0, 1, 0o600) >= 0, libc.shmget(0, 4096, 0o600) >= 0, libc.msgget(0, 0o600) >= 0)


def signals():
    pid = os.fork()
    if pid == 0:
        time.sleep(30)
        os._exit(1)
    p = os.pidfd_open(pid)
    signal.pidfd_send_signal(p, signal.SIGKILL)
    print(select.select([p], [], [], 5)[0] == [p], os.waitpid(pid, 0)[1])
    signal.signal(signal.SIGALRM, lambda *a: print("alarm"))
    with_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    print(signal.sigwait({signal.SIGALRM}) == signal.SIGALRM, with_mask == set())
    print(resource.getrlimit(resource.RLIMIT_CORE)[0] >= 0, os.cpu_count() > 0, len(os.sched_getaffinity(0)) > 0)


def sockets():
    u = socket.socket(socket.AF_UNIX)
    u.bind("sock")
    u.listen()
    socket.socket(socket.AF_UNIX).connect("sock")
    os.unlink("sock")
    x = socket.socket(socket.AF_UNIX)
    x.bind("\0abstract-%d" % os.getpid())
    x.listen()
    socket.socket(socket.AF_UNIX).connect(x.getsockname())
    print("unix")
    v6 = socket.create_server(("::1", 0), family=socket.AF_INET6)
    socket.create_connection(v6.getsockname()[:2]).close()
    d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    d.bind(("127.0.0.1", 0))
    d.sendto(b"d", d.getsockname())
    print(d.recv(9), socket.gethostbyname("localhost"), socket.getaddrinfo("127.0.0.1", 80)[0][4])


if __name__ == "__main__":
    processes()
    asyncio.run(loop())
    descriptors()
    signals()
    sockets()
