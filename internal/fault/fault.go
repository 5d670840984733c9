// Package fault is the error that reaches a person or a client.
//
// It carries a kind from a closed set, a public sentence, a hint that can be
// pasted, and a private cause that is logged where it happened and never sent.
// Kinds map to exit codes and RPC codes in kind.go and nowhere else.
package fault

import (
	"errors"
	"fmt"
	"strings"
)

// Error is a failure with a public face. The zero value is an Internal fault.
type Error struct {
	Kind  Kind
	text  string
	hint  string
	cause error
	// Reason is a machine-readable word for the API (google.rpc.ErrorInfo), or empty.
	Reason string
	// Field is the dotted path of the request field at fault, or empty.
	Field string
}

// New makes a fault whose public text is the formatted sentence.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, text: fmt.Sprintf(format, args...)}
}

// Hint adds a command or an action that a person can paste.
func (e *Error) Hint(format string, args ...any) *Error {
	e.hint = fmt.Sprintf(format, args...)
	return e
}

// Cause keeps the private reason. It is reachable with errors.Is and errors.As
// and is not part of the public text.
func (e *Error) Cause(err error) *Error {
	e.cause = err
	return e
}

// On names the request field at fault.
func (e *Error) On(field string) *Error {
	e.Field = field
	return e
}

// Because sets the machine-readable reason.
func (e *Error) Because(reason string) *Error {
	e.Reason = reason
	return e
}

// Error returns the public sentence only.
func (e *Error) Error() string {
	if e.text == "" {
		return e.Kind.String()
	}
	return e.text
}

// Unwrap returns the private cause.
func (e *Error) Unwrap() error { return e.cause }

// HintText returns the hint, or the empty string.
func (e *Error) HintText() string { return e.hint }

// KindOf returns the kind of the outermost fault in err, or Internal.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// HintOf returns the hint of the outermost fault in err that has one.
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.hint != "" {
			return e.hint
		}
		err = e.cause
	}
	return ""
}

// Detail returns the public sentence followed by the private causes, for a
// terminal of the person who owns the process. Never send it over a wire.
func Detail(err error) string {
	var e *Error
	text := err.Error()
	if errors.As(err, &e) && e.cause != nil {
		if cause := Detail(e.cause); !strings.Contains(text, cause) {
			return text + ": " + cause
		}
	}
	return text
}
