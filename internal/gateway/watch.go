package gateway

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/fault"
)

// WatchSandbox implements the API: a snapshot, then what was asked to follow.
func (g *Gateway) WatchSandbox(ctx context.Context, req *openshellv1.WatchSandboxRequest, stream *connect.ServerStream[openshellv1.SandboxStreamEvent]) error {
	b, err := g.find(ctx, req.GetWorkspaceScope(), req.GetSandbox())
	if err != nil {
		return err
	}
	filter, err := newLogFilter(req.GetLogSources(), req.GetLogMinLevel(), req.GetSinceTime().AsTime(), req.GetSinceTime() != nil)
	if err != nil {
		return err
	}
	w := &watcher{req: req, stream: stream, filter: filter, b: b}
	lines := int(req.GetLogTailLines())
	if lines == 0 {
		lines = 200
	}
	if c := req.GetResumeAfterCursor(); c != "" {
		if w.at, err = b.hub.parse(c); err != nil {
			return err
		}
	} else {
		w.at, w.keep = b.hub.tail(lines, int(req.GetEventTail()))
	}
	first := true
	for {
		r, changed, gone := b.watchRecord()
		if first || (req.GetFollowStatus() && r.version != w.version) {
			w.version = r.version
			if err := stream.Send(&openshellv1.SandboxStreamEvent{Payload: &openshellv1.SandboxStreamEvent_Sandbox{Sandbox: r.wire()}}); err != nil {
				return err
			}
		}
		first = false
		wake, closed, err := w.drain()
		if err != nil {
			return err
		}
		// Logs first, so that a terminal phase is the last thing seen.
		if gone || closed || (req.GetStopOnTerminal() && r.s.Life.Settled()) {
			return nil
		}
		if !req.GetFollowStatus() && !req.GetFollowLogs() && !req.GetFollowEvents() && !req.GetStopOnTerminal() {
			return nil
		}
		select {
		case <-changed:
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		case <-g.base.Done():
			return fault.New(fault.Unavailable, "the gateway is shutting down")
		}
	}
}

type watcher struct {
	req     *openshellv1.WatchSandboxRequest
	stream  *connect.ServerStream[openshellv1.SandboxStreamEvent]
	filter  logFilter
	b       *box
	at      uint64
	keep    func(entry) bool // of the replay; nil: everything
	version uint64
}

// drain sends what is behind the position.
func (w *watcher) drain() (<-chan struct{}, bool, error) {
	list, lost, wake, closed := w.b.hub.after(w.at)
	if lost > 0 {
		w.at += lost
		if w.req.GetFollowLogs() || w.req.GetFollowEvents() {
			if err := w.stream.Send(&openshellv1.SandboxStreamEvent{Payload: &openshellv1.SandboxStreamEvent_Warning{
				Warning: &openshellv1.SandboxStreamWarning{Message: fmt.Sprintf("watch stream lagged; dropped %d messages", lost)}}}); err != nil {
				return nil, false, err
			}
		}
	}
	for _, e := range list {
		w.at = e.seq
		if w.keep != nil && !w.keep(e) {
			continue
		}
		m := &openshellv1.SandboxStreamEvent{Cursor: w.b.hub.cursor(e.seq)}
		switch {
		case e.log != nil && w.req.GetFollowLogs() && w.filter.passes(e.log):
			m.Payload = &openshellv1.SandboxStreamEvent_Log{Log: e.log}
		case e.event != nil && w.req.GetFollowEvents() && w.filter.recent(e.event.GetEventTime().AsTime()):
			m.Payload = &openshellv1.SandboxStreamEvent_Event{Event: e.event}
		default:
			continue
		}
		if err := w.stream.Send(m); err != nil {
			return nil, false, err
		}
	}
	return wake, closed, nil
}

// logFilter selects log lines.
type logFilter struct {
	sources []string
	level   int // highest rank that passes; negative: all
	since   time.Time
}

var levelRanks = map[string]int{"ERROR": 0, "WARN": 1, "WARNING": 1, "INFO": 2, "OCSF": 2, "DEBUG": 3, "TRACE": 4}

func newLogFilter(sources []string, level string, since time.Time, hasSince bool) (logFilter, error) {
	f := logFilter{sources: sources, level: -1}
	if hasSince {
		f.since = since
	}
	if level != "" {
		if r, ok := levelRanks[strings.ToUpper(level)]; ok {
			f.level = r
		}
	}
	return f, nil
}

func (f logFilter) recent(at time.Time) bool { return f.since.IsZero() || !at.Before(f.since) }

func (f logFilter) passes(l *openshellv1.SandboxLogLine) bool {
	if len(f.sources) > 0 && !slices.Contains(f.sources, l.GetSource()) {
		return false
	}
	if f.level >= 0 {
		if r, ok := levelRanks[l.GetLevel()]; !ok || r > f.level {
			return false
		}
	}
	return f.recent(l.GetEventTime().AsTime())
}

// GetSandboxLogs implements the API.
func (g *Gateway) GetSandboxLogs(ctx context.Context, req *openshellv1.GetSandboxLogsRequest) (*openshellv1.GetSandboxLogsResponse, error) {
	b, err := g.find(ctx, req.GetWorkspaceScope(), req.GetSandbox())
	if err != nil {
		return nil, err
	}
	filter, err := newLogFilter(req.GetSources(), req.GetMinLevel(), req.GetSinceTime().AsTime(), req.GetSinceTime() != nil)
	if err != nil {
		return nil, err
	}
	res := &openshellv1.GetSandboxLogsResponse{}
	list, _, _, _ := b.hub.after(0)
	for _, e := range list {
		if e.log == nil {
			continue
		}
		res.BufferTotal++
		if filter.passes(e.log) {
			res.Logs = append(res.Logs, e.log)
		}
	}
	lines := int(req.GetLines())
	if lines == 0 {
		lines = 2000
	}
	if len(res.Logs) > lines {
		res.Logs = res.Logs[len(res.Logs)-lines:]
	}
	return res, nil
}
