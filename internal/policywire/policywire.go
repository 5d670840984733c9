// Package policywire translates policy documents to and from the messages of
// the API.
//
// It owns the translation only: a document that came off the wire is not
// valid until policy.Validate says so. What the wire cannot carry is an error
// and never left out. The command line, the gateway and the sandbox's uplink
// use it; the messages go no further inside than here.
package policywire

import (
	"maps"
	"math"
	"slices"

	"google.golang.org/protobuf/types/known/structpb"

	pb "openshell.dev/openshell/api/gen/sandboxv1"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/policy"
)

// To returns the message of a document. A document with a part that the wire
// does not know is a fault.Unsupported that names it.
func To(d *policy.Document) (*pb.SandboxPolicy, error) {
	if d == nil {
		return nil, nil
	}
	if d.UI != nil {
		return nil, fault.New(fault.Unsupported, "%s: ui: this version of the API cannot carry a ui section", d.At("ui").In(d.Source))
	}
	out := &pb.SandboxPolicy{Version: policy.Version}
	if f := d.Filesystem; f != nil {
		out.Filesystem = &pb.FilesystemPolicy{IncludeWorkdir: f.IncludeWorkdir, ReadOnly: slices.Clone(f.ReadOnly), ReadWrite: slices.Clone(f.ReadWrite)}
	}
	if l := d.Landlock; l != nil {
		out.Landlock = &pb.LandlockPolicy{Compatibility: l.Compatibility.String()}
	}
	if p := d.Process; p != nil {
		out.Process = &pb.ProcessPolicy{RunAsUser: p.RunAsUser, RunAsGroup: p.RunAsGroup}
	}
	for i := range d.Rules {
		r := &d.Rules[i]
		m := &pb.NetworkPolicyRule{Name: r.Title()}
		for j := range r.Endpoints {
			m.Endpoints = append(m.Endpoints, endpointTo(&r.Endpoints[j]))
		}
		for _, b := range r.Binaries {
			m.Binaries = append(m.Binaries, &pb.NetworkBinary{Path: b.Path})
		}
		if out.NetworkPolicies == nil {
			out.NetworkPolicies = map[string]*pb.NetworkPolicyRule{}
		}
		out.NetworkPolicies[r.Key] = m
	}
	for i := range d.Middlewares {
		m, err := middlewareTo(d, &d.Middlewares[i])
		if err != nil {
			return nil, err
		}
		if out.NetworkMiddlewares == nil {
			out.NetworkMiddlewares = map[string]*pb.NetworkMiddlewareConfig{}
		}
		out.NetworkMiddlewares[d.Middlewares[i].Key] = m
	}
	return out, nil
}

func middlewareTo(d *policy.Document, m *policy.Middleware) (*pb.NetworkMiddlewareConfig, error) {
	if m.OnUninspectable != policy.UninspectableUnspecified {
		path := "network_middlewares." + m.Key + ".on_uninspectable"
		return nil, fault.New(fault.Unsupported, "%s: %s: this version of the API cannot carry it", d.At(path).In(d.Source), path)
	}
	out := &pb.NetworkMiddlewareConfig{Name: m.Name, Middleware: m.Middleware, OnError: m.OnError.String(), Order: m.Order,
		Endpoints: &pb.MiddlewareEndpointSelector{Include: slices.Clone(m.Include), Exclude: slices.Clone(m.Exclude)}}
	if out.Name == "" {
		out.Name = m.Key
	}
	if len(m.Config) > 0 {
		config, err := structpb.NewStruct(m.Config)
		if err != nil {
			return nil, fault.New(fault.InvalidArgument, "network_middlewares.%s.config: %v", m.Key, err)
		}
		out.Config = config
	}
	return out, nil
}

// From returns the document of a message; nil for nil. A word or number that
// no document can say is a fault.InvalidArgument with the field. The result
// is still to be validated.
func From(m *pb.SandboxPolicy) (*policy.Document, error) {
	if m == nil {
		return nil, nil
	}
	if m.GetVersion() > policy.Version {
		return nil, bad("policy.version", "version %d is not known", m.GetVersion())
	}
	d := &policy.Document{Source: "policy"}
	if f := m.GetFilesystem(); f != nil {
		d.Filesystem = &policy.Filesystem{IncludeWorkdir: f.GetIncludeWorkdir(), ReadOnly: slices.Clone(f.GetReadOnly()), ReadWrite: slices.Clone(f.GetReadWrite())}
	}
	if l := m.GetLandlock(); l != nil {
		mode, err := word("policy.landlock.compatibility", l.GetCompatibility(), policy.HardRequirement)
		if err != nil {
			return nil, err
		}
		d.Landlock = &policy.Landlock{Compatibility: mode}
	}
	if p := m.GetProcess(); p != nil {
		d.Process = &policy.Process{RunAsUser: p.GetRunAsUser(), RunAsGroup: p.GetRunAsGroup()}
	}
	for _, key := range slices.Sorted(maps.Keys(m.GetNetworkPolicies())) {
		rule, err := ruleFrom(key, m.GetNetworkPolicies()[key])
		if err != nil {
			return nil, err
		}
		d.Rules = append(d.Rules, rule)
	}
	for _, key := range slices.Sorted(maps.Keys(m.GetNetworkMiddlewares())) {
		w := m.GetNetworkMiddlewares()[key]
		onError, err := word("policy.network_middlewares."+key+".on_error", w.GetOnError(), policy.FailOpen)
		if err != nil {
			return nil, err
		}
		mw := policy.Middleware{Key: key, Middleware: w.GetMiddleware(), Order: w.GetOrder(), OnError: onError,
			Include: slices.Clone(w.GetEndpoints().GetInclude()), Exclude: slices.Clone(w.GetEndpoints().GetExclude())}
		if w.GetName() != key {
			mw.Name = w.GetName()
		}
		if w.GetConfig() != nil {
			mw.Config = w.GetConfig().AsMap()
		}
		d.Middlewares = append(d.Middlewares, mw)
	}
	return d, nil
}

func ruleFrom(key string, m *pb.NetworkPolicyRule) (policy.Rule, error) {
	r := policy.Rule{Key: key}
	if m.GetName() != key {
		r.Name = m.GetName()
	}
	for i, e := range m.GetEndpoints() {
		out, err := endpointFrom(field("policy.network_policies."+key+".endpoints", i), e)
		if err != nil {
			return r, err
		}
		r.Endpoints = append(r.Endpoints, out)
	}
	for _, b := range m.GetBinaries() {
		r.Binaries = append(r.Binaries, policy.Binary{Path: b.GetPath()})
	}
	return r, nil
}

func bad(path, format string, args ...any) error {
	return fault.New(fault.InvalidArgument, path+": "+format, args...).On(path)
}

// word finds the value of an enumeration that is spelled s; "" is zero.
func word[T interface {
	~uint8
	String() string
}](path, s string, last T) (T, error) {
	for v := T(0); v <= last; v++ {
		if v.String() == s {
			return v, nil
		}
	}
	return 0, bad(path, "%q is not known", s)
}

func port(path string, n uint32) (uint16, error) {
	if n == 0 || n > math.MaxUint16 {
		return 0, bad(path, "%d is not a port", n)
	}
	return uint16(n), nil
}
