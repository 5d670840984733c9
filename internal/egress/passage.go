package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"openshell.dev/openshell/internal/brand"
)

// passage is one intent on its way through: who wants it and what was decided.
type passage struct {
	intent Intent
	owner  Owner
	client netip.AddrPort

	gen      *generation
	flows    []Flow    // one for each holder
	verdicts []Verdict // beside flows
}

// controlPorts are never reached through a sandbox: etcd, the Kubernetes API
// server, the kubelet.
var controlPorts = []uint16{2379, 2380, 6443, 10250, 10255}

// hostAliases are the names of the host inside a sandbox.
var hostAliases = []string{brand.HostAlias, "host.docker.internal", "host.containers.internal"}

// reserved are names the product answers itself; they never lead outside.
var reserved = []string{brand.PolicyName, brand.InferenceURL}

// authorise finds the owner and asks the policy. The passage is returned with
// a denial too, as far as it is known.
func (p *Proxy) authorise(ctx context.Context, a *Arrival, in Intent) (*passage, *Denial) {
	pass := &passage{intent: in, client: a.Client}
	owner, err := p.owner(ctx, a)
	pass.owner = owner
	if errors.Is(err, errNobody) {
		return pass, pass.nobody(p.current.Load())
	}
	if err != nil {
		return pass, pass.denied(codePolicy, "", err.Error())
	}
	for _, h := range owner.Holders {
		f := Flow{Host: in.Host, Addr: in.Addr, Port: in.Port, Chain: make([]string, len(h.Chain))}
		for i, x := range h.Chain {
			f.Chain[i] = x.Path
		}
		pass.flows = append(pass.flows, f)
	}
	return pass, pass.evaluate(p.current.Load())
}

// nobody denies a connection whose owner is gone. What no program may reach is
// denied as such: that is more use to a person than who asked.
func (s *passage) nobody(g *generation) *Denial {
	s.gen = g
	v := g.policy.Connect(Flow{Host: s.intent.Host, Addr: s.intent.Addr, Port: s.intent.Port, Chain: []string{""}})
	if v.Allow || v.Rule != "" || v.Reason == "" {
		return s.denied(codePolicy, v.Rule, errNobody.Error())
	}
	d := s.denied(codePolicy, "", v.Reason)
	d.Change, d.Asked = v.Change, true
	return d
}

// evaluate asks g about every holder; all must be allowed.
func (s *passage) evaluate(g *generation) *Denial {
	s.gen = g
	if slices.Contains(reserved, s.intent.Host) {
		return s.denied(codePolicy, "", fmt.Sprintf("%s is reserved for the sandbox itself", s.intent.Host))
	}
	if len(s.flows) == 0 {
		return s.denied(codePolicy, "", errNobody.Error())
	}
	verdicts := make([]Verdict, 0, len(s.flows))
	for i, f := range s.flows {
		v := g.policy.Connect(f)
		if !v.Allow {
			d := s.denied(codePolicy, v.Rule, v.Reason)
			d.Holder, d.Change, d.Asked = s.owner.Holders[i], v.Change, true
			return d
		}
		verdicts = append(verdicts, v)
	}
	s.verdicts = verdicts
	return nil
}

func (s *passage) rule() string {
	if len(s.verdicts) == 0 {
		return ""
	}
	return s.verdicts[0].Rule
}

// addresses returns the addresses of the intent, asked once.
func (p *Proxy) addresses(ctx context.Context, s *passage) ([]netip.Addr, *Denial) {
	if s.intent.Addr.IsValid() {
		return []netip.Addr{s.intent.Addr}, nil
	}
	if slices.Contains(hostAliases, s.intent.Host) {
		if !p.opts.HostAddress.IsValid() {
			return nil, s.denied(codeAddress, s.rule(), "no address of the host is known to this sandbox")
		}
		return []netip.Addr{p.opts.HostAddress.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.limits.Resolve)
	defer cancel()
	// The final dot keeps the host's search domains out of it.
	found, err := p.opts.Resolver.LookupNetIP(ctx, "ip", s.intent.Host+".")
	if err != nil {
		var de *net.DNSError
		why := "the name could not be resolved"
		if errors.As(err, &de) && de.IsNotFound {
			why = "the name does not exist"
		}
		return nil, s.failed(why, err)
	}
	if len(found) == 0 {
		return nil, s.failed("the name has no address", nil)
	}
	return found[:min(len(found), maxAddresses)], nil
}

// maxAddresses is how many addresses of one name are tried.
const maxAddresses = 16

// checkAddress returns why addr may not be dialled for this passage under g.
func (s *passage) checkAddress(p *Proxy, g *generation, addr netip.Addr) *Denial {
	addr = addr.Unmap()
	if !addr.IsValid() || addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() {
		return s.denied(codeAddress, s.rule(), "not an address that can be dialled")
	}
	for _, own := range p.opts.Own {
		if own.Contains(addr) {
			return s.denied(codeAddress, s.rule(), "an address of the sandbox itself")
		}
	}
	if p.names.owns(addr) {
		return s.denied(codeAddress, s.rule(), "an address that stands for a name inside the sandbox")
	}
	if slices.Contains(hostAliases, s.intent.Host) {
		return s.checkAlias(p, addr)
	}
	for i, f := range s.flows {
		if i >= len(s.verdicts) {
			return s.denied(codeAddress, s.rule(), "internal address")
		}
		if err := g.policy.Address(f, s.verdicts[i], addr); err != nil {
			return s.denied(codeAddress, s.verdicts[i].Rule, err.Error())
		}
	}
	return nil
}

// checkAlias applies the rules of the host alias: exactly the address the
// backend pinned, never the metadata service, never a control-plane port.
func (s *passage) checkAlias(p *Proxy, addr netip.Addr) *Denial {
	switch {
	case addr != p.opts.HostAddress.Unmap(), addr == metadata:
		return s.denied(codeAddress, s.rule(), "trusted-gateway check failed")
	case slices.Contains(controlPorts, s.intent.Port):
		return s.denied(codeAddress, s.rule(), fmt.Sprintf("port %d belongs to a control plane", s.intent.Port))
	}
	return nil
}

var metadata = netip.AddrFrom4([4]byte{169, 254, 169, 254})
