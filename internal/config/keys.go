package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"openshell.dev/openshell/internal/fault"
)

// kind is the type of a value in the file.
type kind uint8

const (
	text kind = iota
	boolean
	integer
	list     // of strings
	unserved // known, but this gateway does nothing with it
)

// key is one setting: where it is read from and what it does. All three
// names are optional.
type key struct {
	path string // below [openshell]
	flag string
	env  string // without the prefix
	kind kind
	set  func(*Settings, any) error
	// same are the values of an unserved key that ask for what happens
	// anyway. Everything else is refused.
	same []any
}

func str(f func(*Settings) *string) func(*Settings, any) error {
	return func(s *Settings, v any) error { *f(s) = v.(string); return nil }
}

func flagBool(f func(*Settings) *bool) func(*Settings, any) error {
	return func(s *Settings, v any) error { *f(s) = v.(bool); return nil }
}

func seconds(f func(*Settings) *time.Duration, low, high int64) func(*Settings, any) error {
	return func(s *Settings, v any) error {
		n := v.(int64)
		if n < low || n > high {
			return fmt.Errorf("%d is not between %d and %d", n, low, high)
		}
		*f(s) = time.Duration(n) * time.Second
		return nil
	}
}

func addrPort(f func(*Settings) *netip.AddrPort) func(*Settings, any) error {
	return func(s *Settings, v any) error {
		a, err := netip.ParseAddrPort(v.(string))
		if err != nil {
			return fmt.Errorf("%q is not an address and port such as 127.0.0.1:17670", v)
		}
		*f(s) = a
		return nil
	}
}

func port(f func(*Settings) *netip.AddrPort) func(*Settings, any) error {
	return func(s *Settings, v any) error {
		n := v.(int64)
		if n < 0 || n > 65535 {
			return fmt.Errorf("%d is not a port", n)
		}
		a := *f(s)
		if !a.IsValid() {
			a = s.Bind
		}
		*f(s) = netip.AddrPortFrom(a.Addr(), uint16(n))
		return nil
	}
}

const year = 365 * 24 * 3600

var keys = []key{
	{path: "gateway.name", flag: "name", env: "GATEWAY_NAME", set: str(func(s *Settings) *string { return &s.Name })},
	{path: "gateway.bind_address", set: addrPort(func(s *Settings) *netip.AddrPort { return &s.Bind })},
	{flag: "bind-address", env: "BIND_ADDRESS", set: func(s *Settings, v any) error {
		a, err := netip.ParseAddr(v.(string))
		if err != nil {
			return fmt.Errorf("%q is not an IP address", v)
		}
		s.Bind = netip.AddrPortFrom(a, s.Bind.Port())
		return nil
	}},
	{flag: "port", env: "SERVER_PORT", kind: integer, set: port(func(s *Settings) *netip.AddrPort { return &s.Bind })},
	{path: "gateway.health_bind_address", set: addrPort(func(s *Settings) *netip.AddrPort { return &s.Health })},
	{flag: "health-port", env: "HEALTH_PORT", kind: integer, set: func(s *Settings, v any) error {
		if v.(int64) == 0 {
			s.Health = netip.AddrPort{}
			return nil
		}
		return port(func(s *Settings) *netip.AddrPort { return &s.Health })(s, v)
	}},
	{path: "gateway.metrics_bind_address", kind: unserved},
	{flag: "metrics-port", env: "METRICS_PORT", kind: unserved, same: []any{"0"}},
	{path: "gateway.log_level", flag: "log-level", env: "LOG_LEVEL", set: str(func(s *Settings) *string { return &s.LogLevel })},
	{path: "gateway.compute_driver", flag: "compute-driver", env: "COMPUTE_DRIVER", set: func(s *Settings, v any) error {
		s.Driver = strings.ToLower(v.(string))
		return nil
	}},
	{path: "gateway.disable_tls", flag: "disable-tls", env: "DISABLE_TLS", kind: boolean, set: flagBool(func(s *Settings) *bool { return &s.DisableTLS })},
	{path: "gateway.tls.cert_path", flag: "tls-cert", env: "TLS_CERT", set: str(func(s *Settings) *string { return &s.TLSCert })},
	{path: "gateway.tls.key_path", flag: "tls-key", env: "TLS_KEY", set: str(func(s *Settings) *string { return &s.TLSKey })},
	{path: "gateway.tls.client_ca_path", flag: "tls-client-ca", env: "TLS_CLIENT_CA", set: str(func(s *Settings) *string { return &s.TLSClientCA })},
	{path: "gateway.tls.external_cert_path", kind: unserved},
	{path: "gateway.tls.external_key_path", kind: unserved},
	{path: "gateway.tls.external_server_names", kind: unserved},
	{path: "gateway.guest_tls_ca", set: str(func(s *Settings) *string { return &s.GuestCA })},
	{path: "gateway.server_sans", flag: "server-san", env: "SERVER_SAN", kind: list, set: func(s *Settings, v any) error {
		s.ServerSANs = v.([]string)
		return nil
	}},
	{env: "LOCAL_TLS_DIR", set: str(func(s *Settings) *string { return &s.LocalTLSDir })},
	{path: "gateway.auth.allow_unauthenticated_users", flag: "allow-unauthenticated-users", kind: boolean, set: flagBool(func(s *Settings) *bool { return &s.AnybodyIsUser })},
	{path: "gateway.mtls_auth.enabled", flag: "enable-mtls-auth", env: "ENABLE_MTLS_AUTH", kind: boolean, set: func(s *Settings, v any) error {
		b := v.(bool)
		s.MTLSAuth = &b
		return nil
	}},
	{path: "gateway.gateway_jwt.signing_key_path", set: str(func(s *Settings) *string { return &s.JWTSigning })},
	{path: "gateway.gateway_jwt.public_key_path", set: str(func(s *Settings) *string { return &s.JWTPublic })},
	{path: "gateway.gateway_jwt.kid_path", set: str(func(s *Settings) *string { return &s.JWTKeyID })},
	{path: "gateway.gateway_jwt.gateway_id", set: str(func(s *Settings) *string { return &s.GatewayID })},
	{path: "gateway.gateway_jwt.ttl_secs", kind: integer, set: seconds(func(s *Settings) *time.Duration { return &s.TokenTTL }, 1, 100*year)},
	{path: "gateway.ssh_session_ttl_secs", kind: integer, set: seconds(func(s *Settings) *time.Duration { return &s.SSHSessionTTL }, 0, 100*year)},
	{path: "gateway.image_preparation_timeout_seconds", kind: integer, set: seconds(func(s *Settings) *time.Duration { return &s.ImagePreparation }, 1, 86400)},
	{path: "gateway.failure_handling.gateway_outage_limit_secs", kind: integer, set: seconds(func(s *Settings) *time.Duration { return &s.OutageLimit }, 1, 86400)},
	{path: "gateway.policy_validation_failure_mode", kind: unserved, same: []any{"fail_closed"}},
	{path: "gateway.config_delivery_mode", kind: unserved, same: []any{"push", "poll"}},
	{path: "gateway.enable_loopback_service_http", flag: "enable-loopback-service-http", env: "ENABLE_LOOPBACK_SERVICE_HTTP", kind: unserved, same: []any{true, "true"}},
	{path: "gateway.enable_websocket_tunnel", kind: unserved, same: []any{false}},
	{path: "gateway.grpc_rate_limit_requests", flag: "grpc-rate-limit-requests", env: "GRPC_RATE_LIMIT_REQUESTS", kind: unserved, same: []any{int64(0), "0"}},
	{path: "gateway.grpc_rate_limit_window_seconds", flag: "grpc-rate-limit-window-seconds", env: "GRPC_RATE_LIMIT_WINDOW_SECONDS", kind: unserved, same: []any{int64(0), "0"}},
	{path: "gateway.provider_profile_sources", kind: unserved, same: []any{[]any{map[string]any{"type": "user"}}}},
	{path: "gateway.credential_drivers", kind: unserved},
	{path: "gateway.oidc", flag: "oidc-issuer", env: "OIDC_ISSUER", kind: unserved},
	{path: "gateway.otlp", kind: unserved},
	{path: "gateway.ocsf_log", kind: unserved},
	{path: "gateway.credential_storage", kind: unserved},
	{path: "gateway.supervisor_pool", kind: unserved},
	{path: "gateway.interceptors", kind: unserved, same: []any{[]any{}}},
	{path: "supervisor.middleware", kind: unserved, same: []any{[]any{}}},
	{path: "supervisor.network", kind: unserved, same: []any{map[string]any{}}},
	{path: "credential_drivers", kind: unserved, same: []any{map[string]any{}}},
	{path: "drivers.native.default_image", set: str(func(s *Settings) *string { return &s.Native.DefaultImage })},
	{path: "drivers.native.image_pull_policy", set: str(func(s *Settings) *string { return &s.Native.PullPolicy })},
	{path: "drivers.native.image_cache_dir", flag: "image-cache-dir", env: "IMAGE_CACHE_DIR", set: str(func(s *Settings) *string { return &s.Native.CacheDir })},
	{path: "drivers.native.catalogue_path", env: "CATALOGUE", set: str(func(s *Settings) *string { return &s.Native.Catalogue })},
	{path: "drivers.native.community_registry", env: "COMMUNITY_REGISTRY", set: str(func(s *Settings) *string { return &s.Native.CommunityRegistry })},
	{path: "drivers.native.supervisor_path", set: str(func(s *Settings) *string { return &s.Native.SupervisorPath })},
	{path: "drivers.native.allow_driver_config", kind: boolean, set: flagBool(func(s *Settings) *bool { return &s.Native.AllowDriverConfig })},

	{flag: "state-dir", env: "GATEWAY_STATE_DIR", set: str(func(s *Settings) *string { return &s.StateDir })},
	{flag: "socket", env: "GATEWAY_SOCKET", set: str(func(s *Settings) *string { return &s.Socket })},
	{flag: "idle-exit", env: "GATEWAY_IDLE_EXIT", set: func(s *Settings, v any) error {
		d, err := time.ParseDuration(v.(string))
		if err != nil || d < 0 {
			return fmt.Errorf("%q is not a duration such as 10m", v)
		}
		s.IdleExit = d
		return nil
	}},
	{flag: "db-url", env: "DB_URL", set: func(s *Settings, v any) error {
		path, ok := strings.CutPrefix(v.(string), "sqlite:")
		if !ok {
			return fault.New(fault.Unsupported, "only sqlite: databases are served, got %q", v)
		}
		s.DBPath = strings.TrimPrefix(path, "//")
		return nil
	}},
}

// FlagNames returns the flags that Load understands, with whether each is a
// switch, in the order of the table.
func FlagNames(f func(name string, isBool bool)) {
	for _, k := range keys {
		if k.flag != "" {
			f(k.flag, k.kind == boolean)
		}
	}
}

// fromText applies the words of a flag or a variable.
func (k key) fromText(s *Settings, words []string) error {
	last := words[len(words)-1]
	switch k.kind {
	case boolean:
		b, err := strconv.ParseBool(last)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", last)
		}
		return k.set(s, b)
	case integer:
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", last)
		}
		return k.set(s, n)
	case list:
		var out []string
		for _, w := range words {
			for part := range strings.SplitSeq(w, ",") {
				if part = strings.TrimSpace(part); part != "" {
					out = append(out, part)
				}
			}
		}
		return k.set(s, out)
	case unserved:
		return k.refuse(last)
	}
	return k.set(s, last)
}

// fromFile applies a value of the file.
func (k key) fromFile(s *Settings, v any) error {
	switch k.kind {
	case unserved:
		return k.refuse(v)
	case list:
		items, ok := v.([]any)
		if !ok {
			return fmt.Errorf("expected a list of strings")
		}
		out := make([]string, 0, len(items))
		for _, item := range items {
			w, ok := item.(string)
			if !ok {
				return fmt.Errorf("expected a list of strings")
			}
			out = append(out, w)
		}
		return k.set(s, out)
	case boolean:
		if _, ok := v.(bool); !ok {
			return fmt.Errorf("expected true or false")
		}
	case integer:
		if _, ok := v.(int64); !ok {
			return fmt.Errorf("expected a whole number")
		}
	default:
		if _, ok := v.(string); !ok {
			return fmt.Errorf("expected a string")
		}
	}
	return k.set(s, v)
}

func (k key) refuse(v any) error {
	for _, s := range k.same {
		if reflect.DeepEqual(s, v) {
			return nil
		}
	}
	return fault.New(fault.Unsupported, "this gateway does not serve this setting yet, and ignoring it would change what you asked for").
		Hint("remove it")
}
