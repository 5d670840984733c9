package runcmd

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/supervisor"
)

// listeners are the local ports that lead into the sandbox.
type listeners struct {
	list []listener
	wg   sync.WaitGroup
}

type listener struct {
	net.Listener
	port uint16 // inside
}

// listen opens the ports of --forward before anything is started, so that a
// port in use is an error with its name and not half a sandbox.
func (f *flags) listen() (*listeners, error) {
	out := &listeners{}
	for _, word := range f.forward {
		bind, port, err := parseForward(word)
		if err != nil {
			return out, &misuseError{err}
		}
		l, err := net.Listen("tcp", net.JoinHostPort(bind, strconv.Itoa(int(port))))
		if err != nil {
			out.close()
			e := fault.New(fault.FailedPrecondition, "--forward %s: cannot listen on %s:%d", word, bind, port).Cause(err)
			if errors.Is(err, syscall.EADDRINUSE) {
				return out, e.Hint("ss -ltnp 'sport = :%d' shows who uses it; or choose another port", port)
			}
			return out, e
		}
		out.list = append(out.list, listener{l, port})
	}
	return out, nil
}

// parseForward reads [BIND:]PORT; without BIND the port is on 127.0.0.1.
func parseForward(s string) (bind string, port uint16, err error) {
	bind = "127.0.0.1"
	p := s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		bind, p = strings.Trim(s[:i], "[]"), s[i+1:]
		if bind == "localhost" {
			bind = "127.0.0.1"
		}
		if _, err := netip.ParseAddr(bind); err != nil {
			return "", 0, misuse("--forward %q: %q is not an address", s, bind).Hint("--forward 127.0.0.1:%s", p)
		}
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", 0, misuse("--forward %q: %q is not a port", s, p).Hint("--forward 8080")
	}
	return bind, uint16(n), nil
}

func (l *listeners) serve(ctx context.Context, sb *supervisor.Sandbox) {
	for _, one := range l.list {
		l.wg.Go(func() {
			for {
				c, err := one.Accept()
				if err != nil {
					return
				}
				l.wg.Go(func() { join(ctx, c, sb, one.port) })
			}
		})
	}
}

func join(ctx context.Context, c net.Conn, sb *supervisor.Sandbox, port uint16) {
	defer c.Close()
	inner, err := sb.Dial(ctx, port)
	if err != nil {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // nobody listens inside: refused, as it would be here
		}
		return
	}
	defer inner.Close()
	var both sync.WaitGroup
	both.Go(func() { oneWay(inner, c) })
	both.Go(func() { oneWay(c, inner) })
	both.Wait()
}

func oneWay(dst, src net.Conn) {
	_, err := io.Copy(dst, src)
	if half, ok := dst.(interface{ CloseWrite() error }); ok && err == nil {
		_ = half.CloseWrite()
		return
	}
	_ = dst.Close()
}

func (l *listeners) close() {
	for _, one := range l.list {
		_ = one.Close()
	}
}
