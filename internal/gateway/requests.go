package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"openshell.dev/openshell/internal/authn"
	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/relay"
	"openshell.dev/openshell/internal/store"
)

const (
	replayFor    = 24 * time.Hour
	maxAdmitted  = 1000
	maxReceipt   = 64 << 10
	headerReplay = brand.Name + "-replayed"
)

// admissions remembers which request ids were carried out.
type admissions struct {
	store store.Store
	key   []byte
	now   func() time.Time
}

// admission is one remembered request. Without Done its outcome is unknown,
// for ever: an error, a crash and a call under way look the same.
type admission struct {
	Method      string    `json:"method"`
	Fingerprint string    `json:"fingerprint"`
	Done        time.Time `json:"done,omitzero"`
	Answer      []byte    `json:"answer,omitempty"`
	Subject     string    `json:"subject,omitempty"` // id of the sandbox it was about
}

// message is a pointer to a generated message.
type message[T any] interface {
	*T
	proto.Message
}

// admit runs do at most once for a request id. do returns its answer and the
// id of its sandbox; replay, if not nil, makes the answer of a repetition out
// of that id, else the first answer is given again. The work goes on when the
// caller leaves.
func admit[T any, M message[T]](ctx context.Context, g *Gateway, method, workspace, id string, req proto.Message,
	replay func(ctx context.Context, sandbox string) (proto.Message, error), do func(context.Context) (M, string, error)) (M, error) {
	if id == "" {
		res, _, err := do(context.WithoutCancel(ctx))
		return res, err
	}
	a, rec, err := g.admits.begin(ctx, principal(ctx), method, workspace, id, req, "")
	if err != nil {
		return nil, err
	}
	if !a.Done.IsZero() {
		out := M(new(T))
		if replay != nil {
			m, err := replay(ctx, a.Subject)
			if err != nil {
				return nil, err
			}
			proto.Merge(out, m)
		} else if err := proto.Unmarshal(a.Answer, out); err != nil {
			return nil, precondition("the first answer is no longer available").Because(reasonNoReplay)
		}
		if info, ok := connect.CallInfoForHandlerContext(ctx); ok {
			info.ResponseHeader().Set(headerReplay, "true")
		}
		return out, nil
	}
	res, subject, err := do(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err // unresolved for ever
	}
	a.Subject = subject
	if replay == nil {
		if a.Answer, err = proto.Marshal(res); err != nil {
			return nil, err
		}
	}
	return res, g.admits.settle(ctx, rec, a)
}

// begin admits a request durably, or finds it. A found one that is Done is to
// be replayed; every other ending is an error.
func (s *admissions) begin(ctx context.Context, p authn.Principal, method, workspace, id string, req proto.Message, subject string) (admission, store.Record, error) {
	id = strings.ToLower(id)
	if !uuid(id) {
		return admission{}, store.Record{}, invalid("request_id", "request_id must be a nonzero UUID of 36 characters")
	}
	if p.Kind != authn.User {
		return admission{}, store.Record{}, invalid("request_id", "request_id is for users only")
	}
	a := admission{Method: method, Fingerprint: s.fingerprint(req), Subject: subject}
	caller := digest(p.Key())
	rec := store.Record{Kind: kindRequest, ID: digest(p.Key(), method, workspace, id), Scope: caller}
	found, err := s.store.Get(ctx, kindRequest, rec.ID)
	if err == nil {
		return s.found(ctx, found, a)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return admission{}, store.Record{}, err
	}
	if err := s.room(ctx, caller); err != nil {
		return admission{}, store.Record{}, err
	}
	if rec.Payload, err = json.Marshal(a); err != nil {
		return admission{}, store.Record{}, err
	}
	rec, err = s.store.Put(context.WithoutCancel(ctx), rec)
	if errors.Is(err, store.ErrExists) { // another call with this id was faster
		return admission{}, store.Record{}, uncertain()
	}
	if err == nil {
		err = s.store.Sync(ctx) // durable before any effect
	}
	return a, rec, err
}

func (s *admissions) found(ctx context.Context, rec store.Record, now admission) (admission, store.Record, error) {
	var a admission
	if err := json.Unmarshal(rec.Payload, &a); err != nil {
		return a, rec, err
	}
	switch {
	case a.Fingerprint != now.Fingerprint:
		return a, rec, precondition("this request_id was used with another payload").Because(reasonMismatch)
	case a.Done.IsZero():
		return a, rec, uncertain()
	case s.now().Sub(a.Done) > replayFor:
		// Its success is forgotten, so it is admitted as if it were new.
		now.Subject = ""
		body, err := json.Marshal(now)
		if err != nil {
			return a, rec, err
		}
		rec.Payload = body
		rec, err = s.store.Put(context.WithoutCancel(ctx), rec)
		return now, rec, err
	}
	return a, rec, nil
}

func uncertain() error {
	return precondition("the outcome of the request with this request_id is not known").Because(reasonUncertain)
}

// room makes sure that a caller does not fill the disk with ids.
func (s *admissions) room(ctx context.Context, caller string) error {
	list, err := s.store.List(ctx, store.Query{Kind: kindRequest, Scope: caller, Limit: maxAdmitted})
	if err != nil || len(list) < maxAdmitted {
		return err
	}
	purged := false
	for _, r := range list {
		var a admission
		if err := json.Unmarshal(r.Payload, &a); err == nil && !a.Done.IsZero() && s.now().Sub(a.Done) > replayFor {
			if err := s.store.Delete(ctx, kindRequest, r.ID, r.Version); err != nil {
				return err
			}
			purged = true
		}
	}
	if !purged {
		return fault.New(fault.Exhausted, "too many requests with a request_id are remembered for this caller")
	}
	return nil
}

func (s *admissions) settle(ctx context.Context, rec store.Record, a admission) error {
	if len(a.Answer) > maxReceipt {
		return nil // stays unresolved
	}
	a.Done = s.now()
	body, err := json.Marshal(a)
	if err != nil {
		return err
	}
	rec.Payload = body
	if _, err := s.store.Put(context.WithoutCancel(ctx), rec); err != nil {
		return err
	}
	return s.store.Sync(context.WithoutCancel(ctx))
}

// exec admits a command. A repetition never runs it again; the function it
// returns settles the id with a real exit.
func (s *admissions) exec(ctx context.Context, p authn.Principal, method, workspace, sandbox string, req interface {
	proto.Message
	GetRequestId() string
}) (func(*relay.Exit), error) {
	if req.GetRequestId() == "" {
		return func(*relay.Exit) {}, nil
	}
	a, rec, err := s.begin(ctx, p, method, workspace, req.GetRequestId(), req, sandbox)
	if err != nil {
		return nil, err
	}
	if !a.Done.IsZero() {
		if a.Subject != sandbox {
			return nil, precondition("the sandbox of the first request is gone").Because(reasonNoReplay)
		}
		return nil, precondition("the command of this request_id has ended; its output is not kept").Because(reasonStreamEnded)
	}
	return func(x *relay.Exit) {
		if !x.TimedOut {
			_ = s.settle(ctx, rec, a) // unsettled stays uncertain, which is true
		}
	}, nil
}

// fingerprint identifies a payload without the id; map order does not count.
func (s *admissions) fingerprint(req proto.Message) string {
	m := proto.Clone(req)
	if f := m.ProtoReflect().Descriptor().Fields().ByName("request_id"); f != nil {
		m.ProtoReflect().Clear(f)
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		raw = nil // our own message: cannot fail
	}
	h := hmac.New(sha256.New, s.key)
	h.Write(raw)
	return hex.EncodeToString(h.Sum(nil))
}

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])
}

// uuid reports whether s is a hyphenated, nonzero, lower-case UUID.
func uuid(s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(raw) != 16 {
		return false
	}
	for _, b := range raw {
		if b != 0 {
			return true
		}
	}
	return false
}
