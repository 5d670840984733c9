package api_test

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/api/gen/openshellv1/openshellv1connect"
)

// A generated Connect service, called by the gRPC client that the SDKs use.

// oddMessage has what a header may not carry as it is.
const oddMessage = "sandbox \"ü\" is 100% busy\nsecond line"

// fakeGateway serves a few RPCs; the rest is the generated Unimplemented.
type fakeGateway struct {
	openshellv1connect.UnimplementedOpenShellHandler
	stdout    chan struct{} // closed by the test when it has seen the first event
	cancelled chan error    // how the context of ExecSandboxInteractive ended
}

func (g *fakeGateway) Health(ctx context.Context, _ *openshellv1.HealthRequest) (*openshellv1.HealthResponse, error) {
	call, ok := connect.CallInfoForHandlerContext(ctx)
	if !ok {
		return nil, errors.New("no call information")
	}
	if _, limited := ctx.Deadline(); !limited {
		return nil, errors.New("the client's deadline did not arrive")
	}
	call.ResponseHeader().Set("openshell-replayed", "true")
	call.ResponseTrailer().Set("request-id", "r-1")
	return &openshellv1.HealthResponse{
		Status:  openshellv1.ServiceStatus_SERVICE_STATUS_HEALTHY,
		Version: call.RequestHeader().Get("Authorization"),
	}, nil
}

func (g *fakeGateway) GetSandbox(context.Context, *openshellv1.GetSandboxRequest) (*openshellv1.SandboxResponse, error) {
	err := connect.NewError(connect.CodeAborted, errors.New(oddMessage))
	for _, message := range []proto.Message{
		&errdetails.ErrorInfo{Reason: "RESOURCE_VERSION_CONFLICT", Metadata: map[string]string{"recovery": "REFRESH_STATE"}},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "name"}}},
	} {
		detail, wrong := connect.NewErrorDetail(message)
		if wrong != nil {
			return nil, wrong
		}
		err.AddDetail(detail)
	}
	return nil, err
}

func (g *fakeGateway) ExecSandbox(_ context.Context, request *openshellv1.ExecSandboxRequest, stream *connect.ServerStream[openshellv1.ExecSandboxEvent]) error {
	if err := stream.Send(stdout(request.GetCommand()[0])); err != nil {
		return err
	}
	<-g.stdout // an event must not wait in a buffer for the next one
	return stream.Send(exit(7))
}

func (g *fakeGateway) ExecSandboxInteractive(ctx context.Context, stream *connect.BidiStream[openshellv1.ExecSandboxInput, openshellv1.ExecSandboxEvent]) error {
	defer func() { g.cancelled <- ctx.Err() }()
	for {
		input, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			break // half-close: output and exit still follow
		}
		if err != nil {
			return err
		}
		if err := stream.Send(stdout(string(input.GetStdin()))); err != nil {
			return err
		}
	}
	if err := stream.Send(stdout("after end of input")); err != nil {
		return err
	}
	return stream.Send(exit(0))
}

func (g *fakeGateway) PushSandboxLogs(_ context.Context, stream *connect.ClientStream[openshellv1.PushSandboxLogsRequest]) (*openshellv1.PushSandboxLogsResponse, error) {
	lines := 0
	for stream.Receive() {
		lines += len(stream.Msg().GetLogs())
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	if lines != 3 {
		return nil, connect.NewError(connect.CodeDataLoss, errors.New("not three lines"))
	}
	return &openshellv1.PushSandboxLogsResponse{}, nil
}

func stdout(text string) *openshellv1.ExecSandboxEvent {
	return &openshellv1.ExecSandboxEvent{Payload: &openshellv1.ExecSandboxEvent_Stdout{
		Stdout: &openshellv1.ExecSandboxStdout{Data: []byte(text)}}}
}

func exit(code int32) *openshellv1.ExecSandboxEvent {
	return &openshellv1.ExecSandboxEvent{Payload: &openshellv1.ExecSandboxEvent_Exit{
		Exit: &openshellv1.ExecSandboxExit{ExitCode: code}}}
}

func stdin(text string) *openshellv1.ExecSandboxInput {
	return &openshellv1.ExecSandboxInput{Payload: &openshellv1.ExecSandboxInput_Stdin{Stdin: []byte(text)}}
}

func TestStockClientAgainstGeneratedService(t *testing.T) {
	for _, transport := range []string{"plaintext", "tls"} {
		t.Run(transport, func(t *testing.T) {
			gateway := &fakeGateway{stdout: make(chan struct{}), cancelled: make(chan error, 1)}
			conn, server := serve(t, gateway, transport == "tls")
			t.Run("unary", func(t *testing.T) { unary(t, conn) })
			t.Run("error with details", func(t *testing.T) { failure(t, conn) })
			t.Run("error as bytes", func(t *testing.T) { rawFailure(t, server) })
			t.Run("server stream", func(t *testing.T) { serverStream(t, conn, gateway) })
			t.Run("client stream", func(t *testing.T) { clientStream(t, conn) })
			t.Run("bidirectional", func(t *testing.T) { bidirectional(t, conn, gateway) })
			t.Run("cancelled", func(t *testing.T) { cancelled(t, conn, gateway) })
			t.Run("unserved", func(t *testing.T) { unserved(t, conn) })
			t.Run("http beside it", func(t *testing.T) { healthz(t, server) })
		})
	}
}

// serve starts the service and /healthz on one port and returns a gRPC client of it.
func serve(t *testing.T, gateway *fakeGateway, tls bool) (*grpc.ClientConn, *httptest.Server) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(openshellv1connect.NewOpenShellHandler(gateway))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })
	server := httptest.NewUnstartedServer(mux)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	secure := insecure.NewCredentials()
	if tls {
		server.Config.Protocols.SetHTTP2(true)
		server.EnableHTTP2 = true
		server.StartTLS()
		roots := x509.NewCertPool()
		roots.AddCert(server.Certificate())
		secure = credentials.NewClientTLSFromCert(roots, "example.com")
	} else {
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
	}
	conn, err := grpc.NewClient("passthrough:///"+server.Listener.Addr().String(), grpc.WithTransportCredentials(secure))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.CloseClientConnections()
		server.Close()
	})
	return conn, server
}

func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func method(name string) string { return "/" + openshellv1connect.OpenShellName + "/" + name }

func unary(t *testing.T, conn *grpc.ClientConn) {
	var header, trailer metadata.MD
	var got openshellv1.HealthResponse
	ctx := metadata.AppendToOutgoingContext(limit(t), "authorization", "Bearer abc")
	err := conn.Invoke(ctx, method("Health"), &openshellv1.HealthRequest{}, &got, grpc.Header(&header), grpc.Trailer(&trailer))
	if err != nil {
		t.Fatal(err)
	}
	if got.GetStatus() != openshellv1.ServiceStatus_SERVICE_STATUS_HEALTHY || got.GetVersion() != "Bearer abc" {
		t.Errorf("Health = %v", &got)
	}
	if header.Get("openshell-replayed") == nil || trailer.Get("openshell-replayed") != nil {
		t.Errorf("openshell-replayed must be initial metadata only: header %v, trailer %v", header, trailer)
	}
	if id := trailer.Get("request-id"); len(id) != 1 || id[0] != "r-1" {
		t.Errorf("trailer = %v", trailer)
	}
}

func failure(t *testing.T, conn *grpc.ClientConn) {
	err := conn.Invoke(limit(t), method("GetSandbox"), &openshellv1.GetSandboxRequest{}, &openshellv1.SandboxResponse{})
	got := status.Convert(err)
	if got.Code() != codes.Aborted || got.Message() != oddMessage {
		t.Errorf("status = %v %q", got.Code(), got.Message())
	}
	details := got.Details()
	if len(details) != 2 {
		t.Fatalf("details = %v, want two", details)
	}
	if info, ok := details[0].(*errdetails.ErrorInfo); !ok || info.GetReason() != "RESOURCE_VERSION_CONFLICT" {
		t.Errorf("first detail = %v", details[0])
	}
	if bad, ok := details[1].(*errdetails.BadRequest); !ok || bad.GetFieldViolations()[0].GetField() != "name" {
		t.Errorf("second detail = %v", details[1])
	}
}

func receive(t *testing.T, stream grpc.ClientStream) *openshellv1.ExecSandboxEvent {
	t.Helper()
	event := new(openshellv1.ExecSandboxEvent)
	if err := stream.RecvMsg(event); err != nil {
		t.Fatal(err)
	}
	return event
}

func serverStream(t *testing.T, conn *grpc.ClientConn, gateway *fakeGateway) {
	stream, err := conn.NewStream(limit(t), &grpc.StreamDesc{ServerStreams: true}, method("ExecSandbox"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.SendMsg(&openshellv1.ExecSandboxRequest{Command: []string{"one"}}), stream.CloseSend()); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, stream); string(got.GetStdout().GetData()) != "one" {
		t.Errorf("first event = %v", got)
	}
	close(gateway.stdout)
	if got := receive(t, stream); got.GetExit().GetExitCode() != 7 {
		t.Errorf("last event = %v", got)
	}
	if err := stream.RecvMsg(new(openshellv1.ExecSandboxEvent)); err != io.EOF {
		t.Errorf("end of stream = %v, want EOF", err)
	}
}

func clientStream(t *testing.T, conn *grpc.ClientConn) {
	stream, err := conn.NewStream(limit(t), &grpc.StreamDesc{ClientStreams: true}, method("PushSandboxLogs"))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		message := &openshellv1.PushSandboxLogsRequest{Logs: []*openshellv1.SandboxLogLine{{Message: "line"}}}
		if err := stream.SendMsg(message); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(stream.CloseSend(), stream.RecvMsg(new(openshellv1.PushSandboxLogsResponse))); err != nil {
		t.Error(err)
	}
}

func interactive(t *testing.T, ctx context.Context, conn *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method("ExecSandboxInteractive"))
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func bidirectional(t *testing.T, conn *grpc.ClientConn, gateway *fakeGateway) {
	stream := interactive(t, limit(t), conn)
	for _, text := range []string{"ping", "", strings.Repeat("x", 1<<20)} { // each waits for its answer
		if err := stream.SendMsg(stdin(text)); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, stream); string(got.GetStdout().GetData()) != text {
			t.Errorf("echo of %d bytes = %d bytes", len(text), len(got.GetStdout().GetData()))
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, stream); string(got.GetStdout().GetData()) != "after end of input" {
		t.Errorf("after half-close = %v", got)
	}
	if got := receive(t, stream); got.GetExit() == nil {
		t.Errorf("last event = %v", got)
	}
	if err := stream.RecvMsg(new(openshellv1.ExecSandboxEvent)); err != io.EOF {
		t.Errorf("end of stream = %v, want EOF", err)
	}
	if err := <-gateway.cancelled; err != nil {
		t.Errorf("half-close cancelled the handler: %v", err)
	}
}

func cancelled(t *testing.T, conn *grpc.ClientConn, gateway *fakeGateway) {
	ctx, cancel := context.WithCancel(limit(t))
	stream := interactive(t, ctx, conn)
	if err := stream.SendMsg(stdin("ping")); err != nil {
		t.Fatal(err)
	}
	receive(t, stream)
	cancel()
	if err := <-gateway.cancelled; err == nil {
		t.Error("the handler did not learn that the client cancelled")
	}
}

// unserved calls every other RPC of the service, and some that do not exist.
func unserved(t *testing.T, conn *grpc.ClientConn) {
	served := map[string]bool{"Health": true, "GetSandbox": true, "ExecSandbox": true, "ExecSandboxInteractive": true, "PushSandboxLogs": true}
	methods := openshellv1.File_openshell_v1_openshell_proto.Services().ByName("OpenShell").Methods()
	names := []string{method("NoSuchMethod"), "/openshell.v1.NoSuchService/Get", "/openshell.inference.v1.Inference/GetClusterInference"}
	for i := range methods.Len() {
		if name := string(methods.Get(i).Name()); !served[name] {
			names = append(names, method(name))
		}
	}
	if len(names) != 84-len(served)+3 {
		t.Errorf("%d RPCs tried, expected all the rest of 84", len(names))
	}
	for _, name := range names {
		stream, err := conn.NewStream(limit(t), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, name)
		if err == nil {
			stream.SendMsg(&openshellv1.HealthRequest{}) // empty is a valid message of every type
			stream.CloseSend()
			err = stream.RecvMsg(new(openshellv1.HealthResponse))
		}
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v, want Unimplemented", name, err)
		}
	}
}
