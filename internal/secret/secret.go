// Package secret holds values that must not be seen.
//
// A Value prints as [secret] through every verb, JSON, text and slog. Only
// the packages that deliver credentials may call Reveal; internal/archtest
// keeps that list.
package secret

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// Value is a secret string. The zero value is the empty secret.
type Value struct{ s string }

const mask = "[secret]"

// New wraps s.
func New(s string) Value { return Value{s: s} }

// Reveal returns the secret itself.
func (v Value) Reveal() string { return v.s }

// Empty reports whether there is nothing to hide.
func (v Value) Empty() bool { return v.s == "" }

// Equal compares in constant time.
func (v Value) Equal(other Value) bool {
	return subtle.ConstantTimeCompare([]byte(v.s), []byte(other.s)) == 1
}

// String hides the value.
func (Value) String() string { return mask }

// GoString hides the value from %#v.
func (Value) GoString() string { return mask }

// Format hides the value from every other verb.
func (Value) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(mask)) }

// MarshalText hides the value from JSON, XML and YAML encoders.
func (Value) MarshalText() ([]byte, error) { return []byte(mask), nil }

// LogValue hides the value from slog.
func (Value) LogValue() slog.Value { return slog.StringValue(mask) }
