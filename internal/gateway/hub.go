package gateway

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/model"
)

// Bounds of what is kept for one sandbox, in memory.
const (
	keepLogs   = 2000
	keepEvents = 200
	keepBytes  = 4 << 20
)

// hub holds the newest log lines and events of one sandbox, in one order, and
// wakes those who follow. It is lost with the process, and cursors say so.
type hub struct {
	mu     sync.Mutex
	epoch  string // of this hub; part of every cursor
	next   uint64 // sequence number of the next entry
	items  []entry
	logs   int // entries of items that are log lines
	bytes  int
	wake   chan struct{} // closed and replaced at every entry
	closed bool
}

// entry is one log line or event.
type entry struct {
	seq   uint64
	log   *openshellv1.SandboxLogLine
	event *openshellv1.PlatformEvent
	bytes int
}

func newHub() *hub {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return &hub{epoch: hex.EncodeToString(b[:]), next: 1, wake: make(chan struct{})}
}

// cursor is fixed in width, so that later is greater byte by byte.
func (h *hub) cursor(seq uint64) string { return fmt.Sprintf("%s%016x", h.epoch, seq) }

// parse returns the sequence number of a cursor that this hub made.
func (h *hub) parse(cursor string) (uint64, error) {
	var seq uint64
	if len(cursor) != 24 || strings.ToLower(cursor) != cursor {
		return 0, invalid("resume_after_cursor", "resume_after_cursor is malformed")
	}
	if _, err := hex.DecodeString(cursor); err != nil {
		return 0, invalid("resume_after_cursor", "resume_after_cursor is malformed")
	}
	if _, err := fmt.Sscanf(cursor[8:], "%016x", &seq); err != nil {
		return 0, invalid("resume_after_cursor", "resume_after_cursor is malformed")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if cursor[:8] != h.epoch || seq >= h.next || (len(h.items) > 0 && seq+1 < h.items[0].seq) || (len(h.items) == 0 && seq+1 < h.next) {
		return 0, errTrimmed
	}
	return seq, nil
}

var errTrimmed = fault.New(fault.OutOfRange, "what followed this cursor is no longer kept")

func (h *hub) add(e entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	e.seq = h.next
	h.next++
	h.items = append(h.items, e)
	h.bytes += e.bytes
	if e.log != nil {
		h.logs++
	}
	for len(h.items) > 1 && (h.logs > keepLogs || len(h.items)-h.logs > keepEvents+keepLogs || h.bytes > keepBytes) {
		if h.items[0].log != nil {
			h.logs--
		}
		h.bytes -= h.items[0].bytes
		h.items[0] = entry{}
		h.items = h.items[1:]
	}
	close(h.wake)
	h.wake = make(chan struct{})
}

// line adds a log line.
func (h *hub) line(l *openshellv1.SandboxLogLine) {
	size := len(l.GetMessage()) + len(l.GetTarget()) + 100
	for k, v := range l.GetFields() {
		size += len(k) + len(v)
	}
	h.add(entry{log: l, bytes: size})
}

// event adds a platform event.
func (h *hub) event(at time.Time, source, kind, reason, message string, meta map[string]string) {
	h.add(entry{bytes: len(message) + 100, event: &openshellv1.PlatformEvent{EventTime: timestamppb.New(at), Source: source, Type: kind, Reason: reason,
		Message: message, Metadata: maps.Clone(meta)}})
}

// platform adds a change of phase as an event and as a log line of the gateway.
func (h *hub) platform(at time.Time, phase model.Phase, reason, message string) {
	kind, level := "Normal", "INFO"
	if phase == model.PhaseError {
		kind, level = "Warning", "ERROR"
	}
	h.event(at, "gateway", kind, reason, message, map[string]string{"phase": phase.String()})
	h.line(&openshellv1.SandboxLogLine{EventTime: timestamppb.New(at), Level: level, Target: "gateway", Source: "gateway", Message: message,
		Fields: map[string]string{"phase": phase.String(), "reason": reason}})
}

// after returns the entries behind a sequence number. lost counts those that
// were trimmed before they could be read.
func (h *hub) after(seq uint64) (list []entry, lost uint64, wake <-chan struct{}, closed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.items) > 0 {
		first := h.items[0].seq
		if seq+1 < first {
			lost = first - seq - 1
			seq = first - 1
		}
		list = append(list, h.items[min(uint64(len(h.items)), seq+1-first):]...)
	}
	return list, lost, h.wake, h.closed
}

// tail returns the position from which the last n log lines and m events are
// replayed, with the entries to leave out of that replay.
func (h *hub) tail(logs, events int) (after uint64, keep func(entry) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	minLog, minEvent := h.next, h.next
	for i := len(h.items) - 1; i >= 0; i-- {
		e := h.items[i]
		switch {
		case e.log != nil && logs > 0:
			logs--
			minLog = e.seq
		case e.event != nil && events > 0:
			events--
			minEvent = e.seq
		}
	}
	return min(minLog, minEvent) - 1, func(e entry) bool {
		if e.log != nil {
			return e.seq >= minLog
		}
		return e.seq >= minEvent
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed = true
		close(h.wake)
		h.wake = make(chan struct{})
	}
}
