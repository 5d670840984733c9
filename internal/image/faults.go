package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// publicFault gives every error of a pull a public face.
func (c *Cache) publicFault(ctx context.Context, src Source, err error) error {
	if f, ok := faultOf(err); ok {
		if hint := src.instead(f); hint != "" {
			f.Hint("%s", hint)
		}
		if f == err {
			return f
		}
		return fault.New(f.Kind, "%s", err.Error()).Hint("%s", fault.HintOf(f)).Because(f.Reason).Cause(err)
	}
	if cause := ctx.Err(); cause != nil {
		kind := fault.Cancelled
		if errors.Is(cause, context.DeadlineExceeded) {
			kind = fault.DeadlineExceeded
		}
		return fault.New(kind, "the pull of %q was stopped", src.Typed).Cause(err)
	}
	if f, ok := faultOf(c.diskFault(err)); ok {
		return f
	}
	return fault.New(fault.Internal, "the image %q could not be unpacked", src.Typed).Cause(err)
}

// instead is a better hint than the registry's where we know what the person
// may have meant by a reference that leads nowhere.
func (s Source) instead(f *fault.Error) string {
	switch {
	case f.Reason != "IMAGE_NOT_FOUND" && f.Reason != "IMAGE_UNAUTHORIZED":
		return ""
	case s.near != "":
		return "for the local path: --from " + s.near
	case s.Entry != nil:
		return "build the image, push it to a registry of yours as " + s.Entry.Name + ":latest, and set " +
			brand.Env("COMMUNITY_REGISTRY") + "=HOST/PATH of that registry"
	}
	return ""
}

// explain turns what a registry or the network did into words.
func (r *registryOrigin) explain(err error) error {
	if _, ours := faultOf(err); ours || err == nil ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	host, name := r.ref.Context().RegistryStr(), plainName(r.ref)
	if te, ok := errors.AsType[*transport.Error](err); ok {
		return r.explainStatus(te, host, name)
	}
	var unknown x509.UnknownAuthorityError
	var verify *tls.CertificateVerificationError
	var dns *net.DNSError
	switch {
	case errors.Is(err, errPlainHTTP), errors.Is(err, errLocalDial):
		return fault.New(fault.FailedPrecondition, "the registry %s was not used: %v", host, innermost(err)).
			Hint("if it is yours, add %q to plain_http under [image] in the configuration", host).Cause(err)
	case errors.As(err, &unknown), errors.As(err, &verify):
		return fault.New(fault.Unavailable, "the certificate of the registry %s is not trusted", host).Cause(err)
	case errors.As(err, &dns):
		return fault.New(fault.Unavailable, "the registry %s has no address", host).
			Hint("check the name, and that this machine can resolve it: getent hosts %s", hostOnly(host)).Cause(err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fault.New(fault.Unavailable, "nothing answers at the registry %s", host).Cause(err)
	}
	return fault.New(fault.Unavailable, "the registry %s cannot be reached or did not finish", host).Cause(err)
}

func (r *registryOrigin) explainStatus(te *transport.Error, host, name string) error {
	first := ""
	if len(te.Errors) > 0 {
		first = string(te.Errors[0].Code)
	}
	trouble := r.keys.trouble()
	switch {
	case te.StatusCode == http.StatusNotFound:
		return fault.New(fault.NotFound, "the image %q was not found", name).
			Hint("check the name and the tag; see what the registry has: skopeo list-tags docker://%s", r.ref.Context().Name()).
			Because("IMAGE_NOT_FOUND").Cause(te)
	case te.StatusCode == http.StatusUnauthorized, te.StatusCode == http.StatusForbidden:
		f := fault.New(fault.Unauthenticated, "the registry %s does not show %q to us: it is not there, or it needs a login", host, name).
			Hint("podman login %s   (or docker login)", host).Because("IMAGE_UNAUTHORIZED")
		if trouble != nil {
			return f.Cause(fmt.Errorf("a stored credential could not be read: %w", trouble))
		}
		return f.Cause(te)
	case te.StatusCode == http.StatusTooManyRequests:
		return fault.New(fault.Exhausted, "the registry %s limits our requests", host).
			Hint("log in, or try again later").Cause(te)
	case te.StatusCode >= 500:
		return fault.New(fault.Unavailable, "the registry %s has a problem of its own (%d)", host, te.StatusCode).Cause(te)
	}
	return fault.New(fault.FailedPrecondition, "the registry %s refused %q (%d %s)", host, name, te.StatusCode, first).Cause(te)
}

func innermost(err error) error {
	for _, known := range []error{errPlainHTTP, errLocalDial} {
		if errors.Is(err, known) {
			return known
		}
	}
	return err
}

func hostOnly(hostport string) string {
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		return h
	}
	return strings.Trim(hostport, "[]")
}

// notes are sentences on what was left out, for the person.
func (d Dropped) notes() []string {
	var out []string
	if d.Devices > 0 {
		out = append(out, fmt.Sprintf("%d special files of the image were left out", d.Devices))
	}
	if d.SetID > 0 {
		out = append(out, fmt.Sprintf("%d set-user-id or set-group-id bits were cleared: they have no effect in a sandbox", d.SetID))
	}
	return out
}
