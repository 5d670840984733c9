// Package health answers the public gRPC health protocol over Connect.
//
// It owns the state of a server and of its services, and tells whoever asks
// (Check, List) or listens (Watch). It knows nothing of why something is
// healthy: the owner of a Server says so with Set. Nothing is serving until it
// was said. The calls need no credentials, so what a caller may cost is bounded.
// The gateway mounts it; anything else that serves Connect may.
package health

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"connectrpc.com/connect"

	"openshell.dev/openshell/api/gen/healthv1"
	"openshell.dev/openshell/api/gen/healthv1/healthv1connect"
)

const (
	maxServices = 100     // names that List answers with, by the protocol
	maxWatches  = 256     // streams that may be open at once
	maxRequest  = 4 << 10 // bytes of a request; it holds one service name
)

// Server is the state of one server. Use New.
type Server struct {
	mu       sync.Mutex
	serving  map[string]bool // by service name, "" is the server as a whole
	closed   bool            // Close was called: nothing serves any more
	watches  int             // open Watch streams
	modified chan struct{}   // closed, and replaced, at each change
}

// New returns a server that knows only itself, and is not serving.
func New() *Server {
	return &Server{serving: map[string]bool{"": false}, modified: make(chan struct{})}
}

// Handler returns the path below which the protocol is served, and its handler.
func (s *Server) Handler(options ...connect.HandlerOption) (string, http.Handler) {
	return healthv1connect.NewHealthHandler(s, append(options, connect.WithReadMaxBytes(maxRequest))...)
}

// Set says whether a service takes calls; "" is the server as a whole. It
// panics beyond 100 services: names come from the program, not from a peer.
func (s *Server) Set(service string, serving bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if was, known := s.serving[service]; known && was == serving {
		return
	}
	if s.serving[service] = serving; len(s.serving) > maxServices {
		panic("health: more services than the protocol can list")
	}
	s.tell()
}

// Serving reports whether a service takes calls. One that was never set does not.
func (s *Server) Serving(service string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closed && s.serving[service]
}

// Close makes everything not serving, for good, and ends every Watch after it
// has said so. Call it before a graceful stop, which would wait for them.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.tell()
	}
}

// tell wakes every Watch; mu is held.
func (s *Server) tell() {
	close(s.modified)
	s.modified = make(chan struct{})
}

// state returns the status of a service; mu is held.
func (s *Server) state(service string) healthv1.HealthCheckResponse_ServingStatus {
	serving, known := s.serving[service]
	switch {
	case !known:
		return healthv1.HealthCheckResponse_SERVICE_UNKNOWN
	case serving && !s.closed:
		return healthv1.HealthCheckResponse_SERVING
	}
	return healthv1.HealthCheckResponse_NOT_SERVING
}

// Check implements the RPC: NOT_FOUND for a service that was never set.
func (s *Server) Check(_ context.Context, request *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := s.state(request.GetService())
	if status == healthv1.HealthCheckResponse_SERVICE_UNKNOWN {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("unknown service %q", request.GetService()))
	}
	return &healthv1.HealthCheckResponse{Status: status}, nil
}

// List implements the RPC.
func (s *Server) List(context.Context, *healthv1.HealthListRequest) (*healthv1.HealthListResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	response := &healthv1.HealthListResponse{Statuses: map[string]*healthv1.HealthCheckResponse{}}
	for service := range s.serving {
		response.Statuses[service] = &healthv1.HealthCheckResponse{Status: s.state(service)}
	}
	return response, nil
}

// Watch implements the RPC: the status now and at each change, until the caller
// leaves or the server is closed. Changes that follow each other quickly may be
// told as one.
func (s *Server) Watch(ctx context.Context, request *healthv1.HealthCheckRequest, stream *connect.ServerStream[healthv1.HealthCheckResponse]) error {
	if !s.enter() {
		return connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("more than %d health watches", maxWatches))
	}
	defer s.leave()
	for last := healthv1.HealthCheckResponse_UNKNOWN; ; {
		s.mu.Lock()
		status, closed, modified := s.state(request.GetService()), s.closed, s.modified
		s.mu.Unlock()
		if status != last {
			if err := stream.Send(&healthv1.HealthCheckResponse{Status: status}); err != nil {
				return err
			}
			last = status
		}
		if closed {
			return connect.NewError(connect.CodeUnavailable, fmt.Errorf("server is shutting down"))
		}
		select {
		case <-modified:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watches == maxWatches {
		return false
	}
	s.watches++
	return true
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watches--
}
