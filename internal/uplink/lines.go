package uplink

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"openshell.dev/openshell/api/gen/openshellv1"
)

// maxLines is how many lines wait for a gateway that is away; the oldest go
// first, and the next push says how many.
const maxLines = 1000

// batch is how many lines go in one message.
const batch = 100

// Lines collects log lines for the gateway without ever making the writer
// wait. It is a slog.Handler, and takes security events through Event. The
// zero value is ready.
type Lines struct {
	mu      sync.Mutex
	lines   []*openshellv1.SandboxLogLine // guarded by mu
	dropped int                           // guarded by mu
	wake    chan struct{}                 // guarded by mu; nil until somebody waits
}

// Add takes one line.
func (l *Lines) Add(at time.Time, level, target, message string, fields map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) >= maxLines {
		l.lines = l.lines[1:]
		l.dropped++
	}
	l.lines = append(l.lines, &openshellv1.SandboxLogLine{EventTime: timestamppb.New(at), Level: level, Target: target, Message: message, Fields: fields})
	if l.wake != nil {
		close(l.wake)
		l.wake = nil
	}
}

// take returns what waits, or what is closed when something does.
func (l *Lines) take() ([]*openshellv1.SandboxLogLine, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == 0 {
		if l.wake == nil {
			l.wake = make(chan struct{})
		}
		return nil, l.wake
	}
	n := min(len(l.lines), batch)
	out := l.lines[:n:n]
	l.lines = l.lines[n:]
	if l.dropped > 0 && n < batch {
		out = append(out, &openshellv1.SandboxLogLine{EventTime: timestamppb.Now(), Level: "WARN", Target: "supervisor",
			Message: fmt.Sprintf("%d earlier lines were dropped while the gateway was away", l.dropped)})
		l.dropped = 0
	}
	return out, nil
}

// back puts lines that were not delivered in front again.
func (l *Lines) back(lines []*openshellv1.SandboxLogLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	room := max(0, maxLines-len(l.lines))
	if len(lines) > room {
		l.dropped += len(lines) - room
		lines = lines[len(lines)-room:]
	}
	l.lines = append(append([]*openshellv1.SandboxLogLine{}, lines...), l.lines...)
}

// pushLines delivers lines as they come.
func (u *Uplink) pushLines(ctx context.Context) {
	delay := firstDelay
	for {
		lines, wake := u.o.Lines.take()
		if lines == nil {
			select {
			case <-wake:
				// What belongs together travels together.
				select {
				case <-time.After(20 * time.Millisecond):
				case <-ctx.Done():
				}
				continue
			case <-ctx.Done():
				u.lastLines()
				return
			}
		}
		if err := u.push(ctx, lines); err != nil {
			u.o.Lines.back(lines)
			select {
			case <-time.After(delay):
			case <-ctx.Done():
				return
			}
			delay = min(delay*2, lastDelay)
			continue
		}
		delay = firstDelay
	}
}

// lastLines delivers what is left when the supervisor ends.
func (u *Uplink) lastLines() {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if lines, _ := u.o.Lines.take(); lines != nil {
		_ = u.push(ctx, lines)
	}
}

func (u *Uplink) push(ctx context.Context, lines []*openshellv1.SandboxLogLine) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	stream, err := u.client.PushSandboxLogs(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&openshellv1.PushSandboxLogsRequest{SandboxId: u.o.SandboxID, Logs: lines}); err != nil {
		_, err := stream.CloseAndReceive()
		return err
	}
	_, err = stream.CloseAndReceive()
	return err
}

// Handler returns a slog handler that sends records of at least info.
func (l *Lines) Handler() slog.Handler { return &handler{l: l} }

type handler struct {
	l     *Lines
	attrs []slog.Attr
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// Handle implements slog.Handler.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	level := "INFO"
	switch {
	case r.Level >= slog.LevelError:
		level = "ERROR"
	case r.Level >= slog.LevelWarn:
		level = "WARN"
	}
	fields := map[string]string{}
	for _, a := range h.attrs {
		fields[a.Key] = a.Value.Resolve().String()
	}
	r.Attrs(func(a slog.Attr) bool {
		fields[a.Key] = a.Value.Resolve().String()
		return true
	})
	h.l.Add(r.Time, level, "supervisor", r.Message, fields)
	return nil
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{l: h.l, attrs: append(append([]slog.Attr{}, h.attrs...), attrs...)}
}

// WithGroup implements slog.Handler; groups are not used here.
func (h *handler) WithGroup(string) slog.Handler { return h }
