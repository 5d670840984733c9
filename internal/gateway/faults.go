package gateway

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/policy"
	"openshell.dev/openshell/internal/store"
)

// Reasons of google.rpc.ErrorInfo that clients branch on.
const (
	reasonInvalid     = "INVALID_ARGUMENT"
	reasonConflict    = "RESOURCE_VERSION_CONFLICT"
	reasonMismatch    = "REQUEST_ID_PAYLOAD_MISMATCH"
	reasonUncertain   = "REQUEST_OUTCOME_UNCERTAIN"
	reasonNoReplay    = "REQUEST_REPLAY_UNAVAILABLE"
	reasonStreamEnded = "REQUEST_STREAM_UNAVAILABLE"
)

// maxErrorText keeps a status with its details below the 8 KiB that clients
// take in trailers.
const maxErrorText = 2 << 10

// rpcError turns any error of a handler into the error a client gets. The
// private cause is logged here and goes no further.
func (g *Gateway) rpcError(ctx context.Context, procedure string, err error) error {
	if err == nil {
		return nil
	}
	var already *connect.Error
	if errors.As(err, &already) {
		return already
	}
	switch {
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, errors.New("the call was cancelled"))
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, errors.New("the call took too long"))
	case errors.Is(err, store.ErrNotFound):
		err = fault.New(fault.NotFound, "not found").Cause(err)
	}
	var conflict *store.ConflictError
	var bad *policy.Error
	switch {
	case errors.As(err, &conflict):
		return conflictError(strings.TrimPrefix(procedure, "/"), conflict)
	case errors.As(err, &bad):
		return withDetails(fault.InvalidArgument, reasonInvalid, bad.Error(), "", "policy", nil)
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		g.log.LogAttrs(ctx, slog.LevelError, "call failed", slog.String("rpc", procedure), slog.String("err", err.Error()))
		return connect.NewError(connect.CodeInternal, errors.New("internal error"))
	}
	if f.Kind == fault.Internal {
		g.log.LogAttrs(ctx, slog.LevelError, "call failed", slog.String("rpc", procedure), slog.String("err", fault.Detail(err)))
	}
	reason := f.Reason
	if reason == "" && f.Kind == fault.InvalidArgument {
		reason = reasonInvalid
	}
	return withDetails(f.Kind, reason, f.Error(), f.HintText(), f.Field, nil)
}

func conflictError(operation string, c *store.ConflictError) error {
	meta := map[string]string{"recovery": "REFRESH_STATE"}
	if c.Current != 0 {
		meta["current_resource_version"] = strconv.FormatUint(c.Current, 10)
	}
	if i := strings.LastIndexByte(operation, '/'); i >= 0 {
		operation = operation[i+1:]
	}
	return withDetails(fault.Conflict, reasonConflict, operation+" failed due to "+c.Error(), "", "", meta)
}

// withDetails makes an error whose details a stock client can read.
func withDetails(kind fault.Kind, reason, text, hint, field string, meta map[string]string) error {
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + "..."
	}
	e := connect.NewError(connect.Code(kind.Code()), errors.New(text))
	if hint != "" && len(hint) < 1024 {
		if meta == nil {
			meta = map[string]string{}
		}
		meta["hint"] = hint
	}
	if reason == "" && len(meta) > 0 {
		reason = strings.ToUpper(strings.ReplaceAll(kind.String(), " ", "_"))
	}
	if reason != "" {
		detail(e, &errdetails.ErrorInfo{Reason: reason, Domain: brand.ErrorDomain, Metadata: meta})
	}
	if field != "" {
		detail(e, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: text}}})
	}
	return e
}

func detail(e *connect.Error, m proto.Message) {
	if d, err := connect.NewErrorDetail(m); err == nil {
		e.AddDetail(d)
	}
}

func invalid(field, format string, args ...any) error {
	return fault.New(fault.InvalidArgument, format, args...).On(field)
}

func precondition(format string, args ...any) *fault.Error {
	return fault.New(fault.FailedPrecondition, format, args...)
}
