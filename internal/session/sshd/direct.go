package sshd

import (
	"context"
	"io"
	"sync"

	"golang.org/x/crypto/ssh"
)

// direct connects a channel to a port on the loopback of the sandbox. Other
// hosts are refused: what leaves the sandbox leaves through its policy.
func (s *Server) direct(ctx context.Context, nc ssh.NewChannel) {
	var m struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(nc.ExtraData(), &m); err != nil || m.Port < 1 || m.Port > 65535 {
		_ = nc.Reject(ssh.ConnectionFailed, "the request is malformed")
		return
	}
	switch m.Host {
	case "127.0.0.1", "::1", "localhost":
	default:
		_ = nc.Reject(ssh.Prohibited, "only the loopback of the sandbox can be reached")
		return
	}
	conn, err := s.box.Dial(ctx, uint16(m.Port))
	if err != nil {
		_ = nc.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	go ssh.DiscardRequests(reqs) // ends with the channel
	var in sync.WaitGroup
	in.Go(func() {
		_, _ = io.Copy(conn, ch)
		if h, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = h.CloseWrite()
		}
	})
	_, _ = io.Copy(ch, conn)
	_ = ch.CloseWrite()
	ch.Close()
	in.Wait()
}
