package gateway

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"connectrpc.com/connect"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/relay"
)

type forwardStream = connect.BidiStream[openshellv1.TcpForwardFrame, openshellv1.TcpForwardFrame]

// ForwardTcp implements the API: a connection to the sandbox's SSH server, to
// a port on its loopback, or, with our service id, a stream of relay frames.
func (g *Gateway) ForwardTcp(ctx context.Context, stream *forwardStream) error {
	first, err := stream.Receive()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return invalid("", "empty ForwardTcp stream")
		}
		return err
	}
	init := first.GetInit()
	if init == nil {
		return invalid("", "first TcpForwardFrame must be init")
	}
	if init.GetWorkspace() == "" {
		return invalid("workspace", "workspace is required")
	}
	if err := g.mayUse(ctx, init.GetWorkspace()); err != nil {
		return err
	}
	b, err := g.fleet.byName(init.GetWorkspace(), init.GetSandbox())
	if err != nil {
		return err
	}
	if err := usable(b.get()); err != nil {
		return err
	}
	switch target := init.GetTarget().(type) {
	case *openshellv1.TcpForwardInit_Tcp:
		port, err := loopbackPort(target.Tcp)
		if err != nil {
			return err
		}
		return g.forwardTCP(ctx, stream, b, port)
	case *openshellv1.TcpForwardInit_Ssh:
		if init.GetServiceId() != relay.ServiceID { // those frames need no second identity
			release, err := g.useSSH(ctx, init.GetAuthorizationToken(), b.id)
			if err != nil {
				return err
			}
			defer release()
		}
		raw, err := g.openRelay(ctx, b, &openshellv1.RelayOpen{ServiceId: init.GetServiceId(),
			Target: &openshellv1.RelayOpen_Ssh{Ssh: &openshellv1.SshRelayTarget{}}})
		if err != nil {
			return err
		}
		buf := make([]byte, 64<<10)
		return forward(ctx, stream, raw.Close,
			func(p []byte) error { _, err := raw.Write(p); return err },
			func() error { return nil }, // raw bytes have no half-close
			func() ([]byte, error) {
				n, err := raw.Read(buf)
				if n > 0 {
					return buf[:n], nil
				}
				return nil, err
			})
	}
	return invalid("target", "tcp forward target is required")
}

func loopbackPort(t *openshellv1.TcpRelayTarget) (uint16, error) {
	switch t.GetHost() {
	case "127.0.0.1", "::1", "localhost":
	default:
		return 0, invalid("tcp.host", "tcp target host must be loopback")
	}
	if t.GetPort() < 1 || t.GetPort() > 65535 {
		return 0, invalid("tcp.port", "tcp target port must be in 1..=65535")
	}
	return uint16(t.GetPort()), nil
}

// forwardTCP carries a connection in frames, which unlike raw bytes know the
// end of one direction.
func (g *Gateway) forwardTCP(ctx context.Context, stream *forwardStream, b *box, port uint16) error {
	conn, err := g.openService(ctx, b, relay.Start{Kind: relay.KindTCP, Port: port})
	if err != nil {
		return err
	}
	f, err := conn.Receive()
	switch {
	case err != nil:
		conn.Close()
		return fault.New(fault.Unavailable, "supervisor relay failed: the stream broke").Cause(err)
	case f.Type == relay.TypeFailed:
		defer conn.Close()
		return relayFailure(f)
	}
	return forward(ctx, stream, conn.Close,
		func(p []byte) error { return conn.SendData(relay.TypeInput, p) },
		func() error { return conn.Send(relay.TypeInputEnd, nil) },
		func() ([]byte, error) {
			for {
				f, err := conn.Receive()
				switch {
				case err != nil:
					return nil, err
				case f.Type == relay.TypeOutput:
					return f.Payload, nil
				case f.Type == relay.TypeOutputEnd:
					return nil, io.EOF
				case f.Type == relay.TypeFailed:
					return nil, relayFailure(f)
				}
			}
		})
}

// forward copies both ways until the sandbox's side ends. The client's
// half-close ends its direction only.
func forward(ctx context.Context, stream *forwardStream, shut func() error, write func([]byte) error, end func() error, read func() ([]byte, error)) error {
	stop := context.AfterFunc(ctx, func() { _ = shut() })
	var inbound sync.WaitGroup
	inbound.Go(func() { // ended by the read deadline below
		for {
			m, err := stream.Receive()
			if errors.Is(err, io.EOF) {
				_ = end()
				return
			}
			if err != nil || m.GetInit() != nil {
				_ = shut()
				return
			}
			if p := m.GetData(); len(p) > 0 && write(p) != nil {
				return
			}
		}
	})
	defer func() {
		stop()
		_ = shut()
		if c := control(ctx); c != nil {
			_ = c.SetReadDeadline(time.Now())
		}
		inbound.Wait()
	}()
	for {
		p, err := read()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			var f *fault.Error
			if errors.As(err, &f) {
				return err
			}
			return fault.New(fault.Unavailable, "supervisor relay failed: the stream broke").Cause(err)
		}
		if err := stream.Send(&openshellv1.TcpForwardFrame{Payload: &openshellv1.TcpForwardFrame_Data{Data: p}}); err != nil {
			return err
		}
	}
}
