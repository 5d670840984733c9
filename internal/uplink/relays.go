package uplink

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/relay"
	"openshell.dev/openshell/internal/session"
)

// relay opens the stream that the gateway asked for and serves it.
func (u *Uplink) relay(ctx context.Context, open *openshellv1.RelayOpen, send func(*openshellv1.SupervisorMessage) error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var target net.Conn
	if t := open.GetTcp(); t != nil && open.GetServiceId() != relay.ServiceID {
		var err error
		if target, err = u.dialTarget(ctx, t); err != nil {
			_ = send(&openshellv1.SupervisorMessage{Payload: &openshellv1.SupervisorMessage_RelayOpenResult{
				RelayOpenResult: &openshellv1.RelayOpenResult{ChannelId: open.GetChannelId(), Error: err.Error()}}})
			return
		}
		defer target.Close()
	}
	s, err := u.openStream(ctx, cancel, open.GetChannelId())
	if err != nil {
		u.o.Log.Warn("relay not opened", "err", err)
		return
	}
	defer s.release()
	switch {
	case open.GetServiceId() == relay.ServiceID:
		c := relay.New(s)
		s.finish(c, u.frames(ctx, c))
	case target != nil:
		splice(s, target)
	default:
		if err := u.ssh.Serve(ctx, &netConn{ReadWriteCloser: s}); err != nil {
			u.o.Log.Info("SSH connection ended", "err", err)
		}
	}
}

// spare keeps one stream open for the gateway's next relay, so that nobody
// waits for the opening. It returns when the session ends or the gateway does
// not want spares. serve is called with the work for each.
func (u *Uplink) spare(parent context.Context, serve func(func())) {
	ctx, cancel := context.WithCancel(parent)
	s, err := u.openStream(ctx, cancel, relay.SpareChannel)
	if err != nil {
		cancel()
		return
	}
	c := relay.New(s)
	f, err := c.Receive()
	if err != nil {
		s.release()
		cancel()
		return
	}
	serve(func() { u.spare(parent, serve) })
	defer cancel()
	defer s.release()
	s.finish(c, u.begin(ctx, c, f))
}

// relayStream is one stream of bytes to the gateway.
type relayStream struct {
	io.ReadWriteCloser
	half    func() error // ends our direction
	cancel  context.CancelFunc
	release func()
}

func (u *Uplink) openStream(ctx context.Context, cancel context.CancelFunc, channel string) (*relayStream, error) {
	stream, err := u.client.RelayStream(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = stream.CloseRequest() }) // see session
	if err := stream.Send(&openshellv1.RelayFrame{Payload: &openshellv1.RelayFrame_Init{Init: &openshellv1.RelayInit{ChannelId: channel}}}); err != nil {
		stop()
		return nil, err
	}
	return &relayStream{half: stream.CloseRequest, cancel: cancel, release: func() { stop() }, ReadWriteCloser: relay.Stream(
		func() ([]byte, error) {
			m, err := stream.Receive()
			if err != nil {
				return nil, err
			}
			return m.GetData(), nil
		},
		func(p []byte) error {
			return stream.Send(&openshellv1.RelayFrame{Payload: &openshellv1.RelayFrame_Data{Data: p}})
		},
		func() error {
			err := stream.CloseRequest()
			cancel()
			return errors.Join(err, stream.CloseResponse())
		})}, nil
}

// finish ends our direction and waits until the gateway has it all and ends
// the stream; reader is closed when whoever reads it has seen that.
func (s *relayStream) finish(c *relay.Conn, reader <-chan struct{}) {
	_ = s.half()
	if reader == nil {
		reader = drain(c)
	}
	select {
	case <-reader:
	case <-time.After(10 * time.Second):
		s.cancel()
		<-reader
	}
}

// drain reads until the peer ends the stream.
func drain(c *relay.Conn) <-chan struct{} {
	done := make(chan struct{})
	go func() { // ends with the stream
		defer close(done)
		for {
			if _, err := c.Receive(); err != nil {
				return
			}
		}
	}()
	return done
}

func (u *Uplink) dialTarget(ctx context.Context, t *openshellv1.TcpRelayTarget) (net.Conn, error) {
	switch t.GetHost() {
	case "127.0.0.1", "::1", "localhost":
	default:
		return nil, errors.New("only the loopback of the sandbox can be reached")
	}
	if t.GetPort() < 1 || t.GetPort() > 65535 {
		return nil, errors.New("the port is not valid")
	}
	return u.o.Box.Dial(ctx, uint16(t.GetPort()))
}

func splice(rw io.ReadWriteCloser, c net.Conn) {
	var in sync.WaitGroup
	in.Go(func() {
		_, _ = io.Copy(c, rw)
		if h, ok := c.(interface{ CloseWrite() error }); ok {
			_ = h.CloseWrite()
		}
	})
	_, _ = io.Copy(rw, c)
	_ = rw.Close()
	in.Wait()
}

// netConn lets a byte stream pass for a connection.
type netConn struct{ io.ReadWriteCloser }

func (*netConn) LocalAddr() net.Addr              { return &net.UnixAddr{Net: "unix"} }
func (*netConn) RemoteAddr() net.Addr             { return &net.UnixAddr{Net: "unix"} }
func (*netConn) SetDeadline(time.Time) error      { return nil }
func (*netConn) SetReadDeadline(time.Time) error  { return nil }
func (*netConn) SetWriteDeadline(time.Time) error { return nil }

// frames serves one stream of our own codec. It returns what is closed when
// the goroutine that reads the stream has ended; nil if there is none.
func (u *Uplink) frames(ctx context.Context, c *relay.Conn) <-chan struct{} {
	f, err := c.Receive()
	if err != nil {
		return nil
	}
	return u.begin(ctx, c, f)
}

// begin does what the first frame of a stream asks for.
func (u *Uplink) begin(ctx context.Context, c *relay.Conn, f relay.Frame) <-chan struct{} {
	if f.Type != relay.TypeStart {
		return nil
	}
	var s relay.Start
	if err := f.Decode(&s); err != nil {
		fail(c, fault.New(fault.InvalidArgument, "the start of a relay is malformed").Cause(err))
		return nil
	}
	switch s.Kind {
	case relay.KindExec:
		return u.exec(ctx, c, s)
	case relay.KindMain:
		return u.attach(ctx, c, s)
	case relay.KindTCP:
		return u.tcp(ctx, c, s)
	}
	fail(c, fault.New(fault.Unsupported, "this supervisor does not know relays of kind %q", s.Kind))
	return nil
}

func fail(c *relay.Conn, err error) {
	text := err.Error()
	_ = c.SendJSON(relay.TypeFailed, relay.Failed{Code: fault.KindOf(err).Code(), Text: text, Hint: fault.HintOf(err)})
}

// attach shows the main process to one more viewer.
func (u *Uplink) attach(ctx context.Context, c *relay.Conn, s relay.Start) <-chan struct{} {
	a := u.o.Box.Main().Attach(s.Write)
	defer u.wasAttached()
	defer a.Close()
	if err := a.Resize(session.Size{Rows: s.Rows, Cols: s.Cols}); err != nil {
		u.o.Log.Debug("terminal not resized", "err", err)
	}
	if c.SendJSON(relay.TypeStarted, relay.Started{Writer: a.Writer()}) != nil {
		return nil
	}
	left := make(chan struct{})
	go func() { // ends with the stream
		defer close(left)
		for {
			f, err := c.Receive()
			if err != nil {
				return
			}
			switch f.Type {
			case relay.TypeInput:
				if a.Writer() {
					_, err = a.Write(f.Payload)
				} else if a.Claim() { // what was typed before is lost
					err = c.Send(relay.TypeWriter, []byte{1})
				}
			case relay.TypeClaim:
				var mine byte
				if a.Claim() {
					mine = 1
				}
				err = c.Send(relay.TypeWriter, []byte{mine})
			case relay.TypeInputEnd:
				_ = a.CloseInput()
			case relay.TypeResize:
				rows, cols := f.Size()
				_ = a.Resize(session.Size{Rows: rows, Cols: cols})
			case relay.TypeSignal:
				_ = a.Signal(int(f.Payload[0]))
			default:
				return
			}
			if err != nil {
				u.o.Log.Debug("input of the main process ended", "err", err)
			}
		}
	}()
	for {
		select {
		case chunk, ok := <-a.Output():
			if !ok {
				exit, err := a.Wait(ctx)
				if err != nil {
					return left
				}
				u.beforeExit()
				_ = c.SendJSON(relay.TypeExit, relay.Exit{Code: exit.Code, Signal: exit.Signal, Reason: exit.Reason})
				// The attachment is over when its client has it all and leaves.
				select {
				case <-left:
				case <-time.After(hangup):
				case <-ctx.Done():
				}
				return left
			}
			t := relay.TypeOutput
			if chunk.Stderr {
				t = relay.TypeErrput
			}
			if c.SendData(t, chunk.Data) != nil {
				return left
			}
		case <-left:
			return left
		case <-ctx.Done():
			return left
		}
	}
}

// tcp carries one connection to the loopback of the sandbox.
func (u *Uplink) tcp(ctx context.Context, c *relay.Conn, s relay.Start) <-chan struct{} {
	conn, err := u.o.Box.Dial(ctx, s.Port)
	if err != nil {
		text := "the sandbox refused the connection to port %d"
		if !errors.Is(err, syscall.ECONNREFUSED) {
			text = "port %d of the sandbox cannot be reached"
		}
		fail(c, fault.New(fault.Unavailable, text, s.Port).Hint("start a server on that port inside, then try again").Cause(err))
		return nil
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if c.SendJSON(relay.TypeStarted, relay.Started{}) != nil {
		return nil
	}
	left := make(chan struct{})
	go func() { // ends with the stream
		defer close(left)
		for {
			f, err := c.Receive()
			if err != nil {
				conn.Close() // the client left
				return
			}
			switch f.Type {
			case relay.TypeInput:
				// What the program no longer reads goes nowhere; its answer
				// may still be under way.
				_, _ = conn.Write(f.Payload)
			case relay.TypeInputEnd:
				if h, ok := conn.(interface{ CloseWrite() error }); ok {
					_ = h.CloseWrite()
				}
			default:
				conn.Close()
			}
		}
	}()
	buf := make([]byte, relay.MaxData)
	for {
		n, err := conn.Read(buf)
		if n > 0 && c.SendData(relay.TypeOutput, buf[:n]) != nil {
			return left
		}
		if err != nil {
			_ = c.Send(relay.TypeOutputEnd, nil)
			return left
		}
	}
}
