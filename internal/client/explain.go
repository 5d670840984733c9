package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// RemoteError is an error that a gateway sent. It carries what only scripts
// ask for; the fault inside carries what a person reads.
type RemoteError struct {
	Fault    *fault.Error
	Metadata map[string]string // of google.rpc.ErrorInfo
	Retry    time.Duration     // how long to wait; 0: not said
}

// Error returns the sentence of the fault.
func (e *RemoteError) Error() string { return e.Fault.Error() }

// Unwrap returns the fault.
func (e *RemoteError) Unwrap() error { return e.Fault }

// faults turns every error of a call into a fault.
func (c *Client) faults() connect.Interceptor { return &faultInterceptor{c} }

type faultInterceptor struct{ c *Client }

func (f *faultInterceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		resp, err := next(ctx, req)
		if err != nil {
			err = f.c.explain(ctx, req.Spec().Procedure, err)
		}
		return resp, err
	}
}

func (f *faultInterceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return &faultConn{next(ctx, spec), ctx, f.c}
	}
}

func (f *faultInterceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

type faultConn struct {
	connect.StreamingClientConn
	ctx context.Context // of this stream only
	c   *Client
}

// Receive reads one message; the end of the stream stays io.EOF.
func (s *faultConn) Receive(m any) error {
	err := s.StreamingClientConn.Receive(m)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return s.c.explain(s.ctx, s.Spec().Procedure, err)
}

// explain says what went wrong in the words of the person who called.
func (c *Client) explain(ctx context.Context, procedure string, err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return err
	}
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return c.Target.unreachable(err)
	}
	if cause := context.Cause(ctx); cause != nil && errors.Is(cause, context.Canceled) {
		return fault.New(fault.Cancelled, "interrupted").Cause(err)
	}
	if !connect.IsWireError(err) {
		if ce.Code() == connect.CodeDeadlineExceeded || errors.Is(err, context.DeadlineExceeded) {
			return fault.New(fault.DeadlineExceeded, "gateway %q did not answer in time", c.Target.Name).
				Hint("%s status", brand.CLI).Cause(err)
		}
		if ce.Code() == connect.CodeUnknown && strings.Contains(ce.Message(), "HTTP status") || ce.Code() == connect.CodeUnimplemented {
			return c.Target.notAGateway(err)
		}
		return c.Target.unreachable(err)
	}
	if ce.Code() == connect.CodeUnimplemented {
		return c.skew(ctx, procedure, ce)
	}
	return c.fromWire(ce)
}

func (c *Client) fromWire(ce *connect.Error) error {
	f := fault.New(fault.FromCode(uint32(ce.Code())), "%s", oneLine(ce.Message())).Cause(&wireError{ce})
	r := &RemoteError{Fault: f}
	for _, d := range ce.Details() {
		v, err := d.Value()
		if err != nil {
			continue // a malformed detail is skipped alone
		}
		switch v := v.(type) {
		case *errdetails.BadRequest:
			for _, x := range v.GetFieldViolations() {
				if f.Field == "" {
					f.Field = x.GetField()
				}
			}
		case *errdetails.ErrorInfo:
			f.Reason, r.Metadata = v.GetReason(), v.GetMetadata()
			if hint := v.GetMetadata()["hint"]; hint != "" {
				f.Hint("%s", oneLine(hint))
			}
		case *errdetails.RetryInfo:
			r.Retry = v.GetRetryDelay().AsDuration()
		case *errdetails.Help:
			for _, l := range v.GetLinks() {
				if f.HintText() == "" {
					f.Hint("%s", oneLine(l.GetDescription()))
				}
			}
		}
	}
	if r.Retry > 0 && f.HintText() == "" {
		f.Hint("try again in %s", r.Retry.Round(time.Second))
	}
	if f.Reason == "RESOURCE_VERSION_CONFLICT" && f.HintText() == "" {
		f.Hint("somebody changed it meanwhile: look again and repeat the command")
	}
	if f.HintText() == "" {
		switch f.Kind {
		case fault.Unauthenticated:
			f.Hint("%s status shows which credentials were used", brand.CLI)
		case fault.PermissionDenied:
			f.Hint("%s whoami shows who you are to the gateway", brand.CLI)
		case fault.NotFound:
			if strings.HasPrefix(ce.Message(), "sandbox") {
				f.Hint("%s sandbox list", brand.CLI)
			}
		}
	}
	return r
}

// wireError keeps the transport's error for errors.As without repeating its
// sentence, which is the fault's.
type wireError struct{ err *connect.Error }

func (e *wireError) Error() string { return e.err.Code().String() }
func (e *wireError) Unwrap() error { return e.err }

// skew says which side is too old.
func (c *Client) skew(ctx context.Context, procedure string, ce *connect.Error) error {
	what := procedure[strings.LastIndexByte(procedure, '/')+1:]
	if what == "Health" {
		return c.Target.notAGateway(ce)
	}
	f := fault.New(fault.Unsupported, "gateway %q does not serve %s", c.Target.Name, what).Cause(ce)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	health, err := c.Health(ctx, &openshellv1.HealthRequest{})
	if err != nil {
		return f
	}
	f = fault.New(fault.Unsupported, "gateway %q (version %s) does not serve %s; this is version %s", c.Target.Name, oneLine(health.GetVersion()), what, brand.Version)
	if Skewed(health.GetVersion()) {
		return f.Hint("use a gateway of the %s line, or the client of the gateway's release", line(brand.API)).Cause(ce)
	}
	return f.Cause(ce)
}

// Skewed reports whether a gateway's version is of another release line.
func Skewed(version string) bool {
	return version != "" && line(version) != line(brand.API)
}

// line is MAJOR.MINOR of a version.
func line(v string) string {
	parts := strings.SplitN(strings.TrimPrefix(v, "v"), ".", 3)
	if len(parts) < 2 {
		return v
	}
	return parts[0] + "." + parts[1]
}

// unreachable explains a connection that did not come about.
func (t Target) unreachable(err error) error {
	kind, say, hint := fault.Unavailable, "", brand.CLI+" status"
	var dns *net.DNSError
	var unknownCA x509.UnknownAuthorityError
	var name x509.HostnameError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	text := err.Error()
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		say, hint = "connection refused: nothing listens there", t.startHint()
	case errors.As(err, &dns):
		say, hint = "no such host "+strconv.Quote(dns.Name), brand.CLI+" gateway list shows the registered addresses"
	case errors.As(err, &record), strings.Contains(text, "server gave HTTP response to HTTPS client"), strings.Contains(text, "first record does not look like a TLS handshake"):
		say, hint = "the gateway speaks plaintext, not TLS", "use http://"+t.Address()
	case errors.As(err, &unknownCA):
		say, hint = "its certificate is signed by an authority this account does not trust", "register it anew with its ca.crt: "+brand.CLI+" gateway add "+t.Endpoint+" --name NAME"
	case errors.As(err, &name):
		say, hint = "its certificate is for another name: "+name.Error(), "add the name to server_sans of the gateway"
	case errors.As(err, &alert), strings.Contains(text, "remote error: tls"):
		kind, say, hint = fault.Unauthenticated, "it refused the client certificate", "copy ca.crt, tls.crt and tls.key of the gateway into the mtls directory of its registration"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		say = "no route to it"
	case isTimeout(err):
		say = "it did not answer within " + dialTimeout.String()
	case t.URL.Scheme == "http": // the text depends on who noticed first
		say, hint = "it ended the connection", "if it speaks TLS: --gateway-endpoint https://"+t.Address()
	case t.URL.Scheme == "https" && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)):
		say, hint = "it ended the connection", "if it speaks plaintext: --gateway-endpoint http://"+t.Address()
	default:
		say = "the connection was lost"
	}
	return fault.New(kind, "cannot reach gateway %q at %s: %s", t.Name, t.Endpoint, say).Hint("%s", hint).Cause(err)
}

func (t Target) startHint() string {
	switch {
	case t.Private:
		return brand.CLI + " sandbox list starts it again"
	case Loopback(t.URL.Hostname()) && t.URL.Scheme == "http":
		return "start one there, or unset " + brand.Env("GATEWAY_ENDPOINT") + " and let " + brand.CLI + " start its own"
	case Loopback(t.URL.Hostname()):
		return "start " + brand.Gateway + ", or choose another with: " + brand.CLI + " gateway select NAME"
	}
	return brand.CLI + " gateway list shows the registered addresses"
}

func (t Target) notAGateway(err error) error {
	return fault.New(fault.Unavailable, "what answers at %s is no %s gateway, or one of a release before 0.1", t.Endpoint, brand.Title).
		Hint("%s gateway list shows the registered addresses", brand.CLI).Cause(err)
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// oneLine removes what could forge lines or drive a terminal.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}
