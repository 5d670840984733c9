package client

import (
	"errors"
	"net"
	"net/url"
	"strings"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/gateways"
)

// Target is the gateway that was found.
type Target struct {
	gateways.Metadata
	URL        *url.URL
	Registered bool   // there is a registration with this name
	Why        string // what named it, for messages
}

// errNoGateway marks that nobody named a gateway.
var errNoGateway = errors.New("no gateway is configured")

func isNoGateway(err error) bool { return errors.Is(err, errNoGateway) }

// NoGateway reports whether err means that no gateway is configured.
func NoGateway(err error) bool { return isNoGateway(err) }

// Find decides which gateway is meant: the endpoint given, the name given,
// the active one. It reads files and makes no connection.
func Find(o Options) (Target, error) {
	if o.Endpoint != "" {
		return findEndpoint(o)
	}
	name, why := strings.TrimSpace(o.Gateway), "--gateway"
	if name == "" {
		var err error
		if name, err = o.Registry.Active(); err != nil {
			return Target{}, err
		}
		why = "the active gateway"
	}
	if name != "" {
		m, err := o.Registry.Get(name)
		if fault.KindOf(err) == fault.NotFound {
			return Target{}, fault.New(fault.NotFound, "unknown gateway %q", name).
				Hint("%s gateway list, then %s gateway select NAME, or %s gateway add ENDPOINT", brand.CLI, brand.CLI, brand.CLI).Cause(err)
		}
		if err != nil {
			return Target{}, err
		}
		return newTarget(m, true, why)
	}
	all, err := o.Registry.List()
	if err != nil {
		return Target{}, err
	}
	for _, m := range all {
		if m.Private { // ours, merely deselected: nobody else was chosen
			return newTarget(m, true, "the only gateway of this account")
		}
	}
	if len(all) > 0 {
		return Target{}, fault.New(fault.FailedPrecondition, "no active gateway").
			Hint("%s gateway select %s", brand.CLI, all[0].Name)
	}
	return Target{}, fault.New(fault.FailedPrecondition, "no active gateway").
		Hint("%s gateway add ENDPOINT", brand.CLI).Cause(errNoGateway)
}

// findEndpoint dials the URL as it is given. A registration with the same URL
// lends its name and its credentials.
func findEndpoint(o Options) (Target, error) {
	same := func(m gateways.Metadata) bool {
		return strings.TrimRight(m.Endpoint, "/") == strings.TrimRight(o.Endpoint, "/")
	}
	if name := strings.TrimSpace(o.Gateway); name != "" {
		m, err := o.Registry.Get(name)
		if err != nil {
			m = gateways.Metadata{Name: name}
		}
		if !same(m) {
			m.UnixSocket, m.Private = "", false
		}
		m.Endpoint = o.Endpoint
		return newTarget(m, err == nil, "--gateway-endpoint")
	}
	all, err := o.Registry.List()
	if err != nil {
		return Target{}, err
	}
	active, _ := o.Registry.Active()
	var found *gateways.Metadata
	for i, m := range all {
		if same(m) && (found == nil || m.Name == active) {
			found = &all[i]
		}
	}
	if found != nil {
		return newTarget(*found, true, "--gateway-endpoint")
	}
	return newTarget(gateways.Metadata{Name: o.Endpoint, Endpoint: o.Endpoint}, false, "--gateway-endpoint")
}

func newTarget(m gateways.Metadata, registered bool, why string) (Target, error) {
	u, err := ParseEndpoint(m.Endpoint)
	if err != nil {
		return Target{}, err
	}
	return Target{Metadata: m, URL: u, Registered: registered, Why: why}, nil
}

// ParseEndpoint reads the URL of a gateway: http or https, a host, perhaps a
// port.
func ParseEndpoint(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		e := fault.New(fault.InvalidArgument, "%q is not the URL of a gateway", s).Hint("https://host:port, or http://127.0.0.1:8080")
		if !strings.Contains(s, "://") && s != "" {
			e = e.Hint("https://%s", s)
		}
		return nil, e
	}
	if u.User != nil {
		return nil, fault.New(fault.InvalidArgument, "the URL of a gateway may not contain a user or a password")
	}
	return u, nil
}

// Address is the host and port to dial.
func (t Target) Address() string {
	port := t.URL.Port()
	if port == "" {
		port = "443"
		if t.URL.Scheme == "http" {
			port = "80"
		}
	}
	return net.JoinHostPort(t.URL.Hostname(), port)
}

// Local reports whether the gateway runs on this host.
func (t Target) Local() bool {
	return t.Private || (!t.IsRemote && Loopback(t.URL.Hostname()))
}

// Loopback reports whether a host name means this host.
func Loopback(host string) bool {
	if strings.EqualFold(host, "localhost") || strings.HasSuffix(strings.ToLower(host), ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
