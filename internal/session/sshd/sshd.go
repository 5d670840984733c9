// Package sshd speaks SSH for one sandbox.
//
// It owns the protocol side: sessions with shell, exec, terminals, signals,
// the attachment to the main process as a subsystem, and connections to the
// loopback inside. Who may open a connection was decided before it gets here,
// so it asks for no credentials. What a request does is session.Box's work.
// The supervisor's uplink uses it.
package sshd

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/session"
)

// Silence after which a connection is probed, and after which it is closed.
const (
	probeAfter = 15 * time.Second
	deadAfter  = 60 * time.Second
	maxChans   = 64 // open channels of one connection
)

// Server serves connections to one sandbox. Use New.
type Server struct {
	box    session.Box
	shells *session.Shells
	log    *slog.Logger
	config *ssh.ServerConfig
	finger string
	// Attached is called when an attachment to the main process has ended;
	// nil means nobody wants to know.
	Attached func()
	// Ended, if set, is called with the exit of the main process before an
	// attachment is told.
	Ended func()
}

// New makes a server with the host key in keyFile, which it creates.
func New(box session.Box, keyFile string, log *slog.Logger) (*Server, error) {
	key, err := hostKey(keyFile)
	if err != nil {
		return nil, err
	}
	s := &Server{box: box, shells: &session.Shells{Box: box}, log: log, finger: ssh.FingerprintSHA256(key.PublicKey())}
	s.config = &ssh.ServerConfig{NoClientAuth: true, ServerVersion: "SSH-2.0-" + brand.Name}
	s.config.AddHostKey(key)
	return s, nil
}

// Fingerprint is the SHA-256 fingerprint of the host key.
func (s *Server) Fingerprint() string { return s.finger }

func hostKey(path string) (ssh.Signer, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make the SSH host key: %w", err)
		}
		block, err := ssh.MarshalPrivateKey(private, "")
		if err != nil {
			return nil, fmt.Errorf("encode the SSH host key: %w", err)
		}
		raw = pem.EncodeToMemory(block)
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			return nil, fmt.Errorf("keep the SSH host key: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("read the SSH host key: %w", err)
	}
	key, err := ssh.ParsePrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("read the SSH host key %s: %w", path, err)
	}
	return key, nil
}

// Serve speaks SSH on c until it ends.
func (s *Server) Serve(ctx context.Context, c net.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	live := &liveness{Conn: c, heard: time.Now()}
	conn, chans, reqs, err := ssh.NewServerConn(live, s.config)
	if err != nil {
		c.Close()
		return fmt.Errorf("SSH handshake: %w", err)
	}
	var work sync.WaitGroup
	defer work.Wait()
	defer conn.Close() // before the wait: it ends whatever the work hangs on
	defer cancel()
	work.Go(func() { ssh.DiscardRequests(reqs) }) // keep-alives want a reply, global forwards a refusal
	work.Go(func() { s.keepAlive(ctx, conn, live) })
	slots := make(chan struct{}, maxChans)
	for nc := range chans {
		select {
		case slots <- struct{}{}:
		default:
			_ = nc.Reject(ssh.ResourceShortage, "too many channels")
			continue
		}
		work.Go(func() {
			defer func() { <-slots }()
			s.channel(ctx, nc)
		})
	}
	return nil
}

func (s *Server) channel(ctx context.Context, nc ssh.NewChannel) {
	switch nc.ChannelType() {
	case "session":
		ch, reqs, err := nc.Accept()
		if err != nil {
			return
		}
		newSession(s, ch).run(ctx, reqs)
	case "direct-tcpip":
		s.direct(ctx, nc)
	default:
		_ = nc.Reject(ssh.UnknownChannelType, "unknown channel type")
	}
}

// keepAlive probes a silent peer and closes the connection of a dead one.
func (s *Server) keepAlive(ctx context.Context, conn *ssh.ServerConn, live *liveness) {
	tick := time.NewTicker(probeAfter / 3)
	defer tick.Stop()
	var probes sync.WaitGroup
	defer probes.Wait()
	free := make(chan struct{}, 1) // one probe at a time; a stuck one ends with the connection
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		switch silent := live.silent(); {
		case silent >= deadAfter:
			s.log.Info("SSH connection closed, the peer is silent")
			conn.Close()
			return
		case silent >= probeAfter:
			select {
			case free <- struct{}{}:
				probes.Go(func() {
					_, _, _ = conn.SendRequest("keepalive@openssh.com", true, nil)
					<-free
				})
			default:
			}
		}
	}
}

// liveness notes when the peer was last heard.
type liveness struct {
	net.Conn
	mu    sync.Mutex
	heard time.Time // guarded by mu
}

func (l *liveness) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if n > 0 {
		l.mu.Lock()
		l.heard = time.Now()
		l.mu.Unlock()
	}
	return n, err
}

func (l *liveness) silent() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.heard)
}
