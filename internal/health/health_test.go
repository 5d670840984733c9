package health_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"openshell.dev/openshell/api/gen/healthv1"
	"openshell.dev/openshell/internal/health"
)

type (
	request  = healthv1.HealthCheckRequest
	response = healthv1.HealthCheckResponse
)

const (
	serving    = healthv1.HealthCheckResponse_SERVING
	notServing = healthv1.HealthCheckResponse_NOT_SERVING
	unknown    = healthv1.HealthCheckResponse_SERVICE_UNKNOWN
)

// dial serves s and returns a stock client of it.
func dial(t *testing.T, s *health.Server) *grpc.ClientConn {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(s.Handler())
	server := httptest.NewUnstartedServer(mux)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	conn, err := grpc.NewClient("passthrough:///"+server.Listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.CloseClientConnections()
		server.Close()
	})
	return conn
}

func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func check(t *testing.T, conn *grpc.ClientConn, service string) (healthv1.HealthCheckResponse_ServingStatus, error) {
	t.Helper()
	var got response
	err := conn.Invoke(limit(t), "/grpc.health.v1.Health/Check", &request{Service: service}, &got)
	return got.GetStatus(), err
}

func watch(t *testing.T, conn *grpc.ClientConn, service string) grpc.ClientStream {
	t.Helper()
	stream, err := conn.NewStream(limit(t), &grpc.StreamDesc{ServerStreams: true}, "/grpc.health.v1.Health/Watch")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(&request{Service: service}); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	return stream
}

func next(t *testing.T, stream grpc.ClientStream, want healthv1.HealthCheckResponse_ServingStatus) {
	t.Helper()
	var got response
	if err := stream.RecvMsg(&got); err != nil {
		t.Fatalf("watch ended with %v, want %v", err, want)
	}
	if got.GetStatus() != want {
		t.Fatalf("watch says %v, want %v", got.GetStatus(), want)
	}
}

func TestCheckFollowsSet(t *testing.T) {
	s := health.New()
	conn := dial(t, s)
	steps := []struct {
		name    string
		do      func()
		service string
		want    healthv1.HealthCheckResponse_ServingStatus
		code    codes.Code
	}{
		{"nothing is serving at first", func() {}, "", notServing, codes.OK},
		{"never set", func() {}, "a.B", 0, codes.NotFound},
		{"set", func() { s.Set("a.B", true) }, "a.B", serving, codes.OK},
		{"another stays as it was", func() {}, "", notServing, codes.OK},
		{"taken back", func() { s.Set("a.B", false) }, "a.B", notServing, codes.OK},
		{"server as a whole", func() { s.Set("", true) }, "", serving, codes.OK},
		{"closed", s.Close, "", notServing, codes.OK},
		{"set after close", func() { s.Set("a.B", true) }, "a.B", notServing, codes.OK},
	}
	for _, step := range steps {
		step.do()
		got, err := check(t, conn, step.service)
		if got != step.want || status.Code(err) != step.code {
			t.Errorf("%s: %v, %v, want %v, %v", step.name, got, err, step.want, step.code)
		}
		if s.Serving(step.service) != (step.want == serving) {
			t.Errorf("%s: Serving disagrees with Check", step.name)
		}
	}
}

func TestListNamesEveryService(t *testing.T) {
	s := health.New()
	conn := dial(t, s)
	s.Set("a.B", true)
	var got healthv1.HealthListResponse
	if err := conn.Invoke(limit(t), "/grpc.health.v1.Health/List", &healthv1.HealthListRequest{}, &got); err != nil {
		t.Fatal(err)
	}
	if n := len(got.GetStatuses()); n != 2 || got.GetStatuses()["a.B"].GetStatus() != serving || got.GetStatuses()[""].GetStatus() != notServing {
		t.Errorf("List = %v", got.GetStatuses())
	}
}

func TestWatchTellsEachChangeOnce(t *testing.T) {
	s := health.New()
	conn := dial(t, s)
	whole, late := watch(t, conn, ""), watch(t, conn, "late.Service")
	next(t, whole, notServing)
	next(t, late, unknown)
	s.Set("other", true) // of no concern to either
	s.Set("", true)
	next(t, whole, serving)
	s.Set("late.Service", true)
	next(t, late, serving)
	s.Close()
	next(t, whole, notServing)
	next(t, late, notServing)
	for _, stream := range []grpc.ClientStream{whole, late} {
		if err := stream.RecvMsg(new(response)); status.Code(err) != codes.Unavailable {
			t.Errorf("after Close the watch ends with %v, want Unavailable", err)
		}
	}
}

func TestWatchesAreBounded(t *testing.T) {
	s := health.New()
	conn := dial(t, s)
	// net/http lets 250 streams run on one connection; the bound is ours, across connections.
	other := dial(t, s)
	var streams []grpc.ClientStream
	for i := range 256 {
		c := conn
		if i%2 == 1 {
			c = other
		}
		stream := watch(t, c, "")
		next(t, stream, notServing)
		streams = append(streams, stream)
	}
	if err := watch(t, conn, "").RecvMsg(new(response)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("watch 257: %v, want ResourceExhausted", err)
	}
	if got, err := check(t, other, ""); err != nil || got != notServing {
		t.Errorf("Check beside full watches: %v, %v", got, err)
	}
	s.Close() // each ends, and so makes room
	for _, stream := range streams {
		next := stream.RecvMsg(new(response))
		if status.Code(next) != codes.Unavailable {
			t.Fatalf("after Close: %v", next)
		}
	}
	if err := watch(t, conn, "").RecvMsg(new(response)); err != nil {
		t.Errorf("watch after the others left: %v", err)
	}
}

func TestHugeRequestIsRefused(t *testing.T) {
	conn := dial(t, health.New())
	_, err := check(t, conn, strings.Repeat("a", 1<<20))
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a service name of 1 MiB: %v, want ResourceExhausted", err)
	}
}
