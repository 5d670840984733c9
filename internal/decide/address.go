package decide

import (
	"net/netip"
	"slices"

	"openshell.dev/openshell/internal/policy"
)

// AddressRule says which addresses may be dialled for an allowed connection.
// The zero value lets none.
type AddressRule struct {
	mode    addressMode
	port    uint16
	allowed []netip.Prefix // of listedOnly; shared with the index
	pinned  netip.Addr     // of pinnedTo
}

type addressMode uint8

const (
	noAddress  addressMode = iota
	pinnedTo               // exactly one address the backend vouches for
	listedOnly             // inside allowed_ips
	publicOnly             // a pattern led here: nothing private
	named                  // an endpoint names the host itself: private too
)

// Pin returns a rule that lets exactly addr be dialled: the address that the
// backend gave the host's own name. It may be private, link-local or loopback,
// which no policy can allow; a metadata address it may not be.
func (r AddressRule) Pin(addr netip.Addr) AddressRule {
	return AddressRule{mode: pinnedTo, port: r.port, pinned: addr.Unmap()}
}

// and is the stricter of two rules.
func (r AddressRule) and(o AddressRule) AddressRule {
	if o.mode < r.mode {
		r.mode, r.pinned, r.allowed = o.mode, o.pinned, o.allowed
	}
	return r
}

// Refusal is why an address may not be dialled. It ends a message of the
// contract: "CONNECT host:port blocked: REFUSAL".
type Refusal uint8

// The refusals. There is none for zero: CheckAddress returns nil instead.
const (
	_                  Refusal = iota
	RefusedNoRule              // the rule is empty
	RefusedInvalid             // no address, or one with a zone
	RefusedLoopback            // 127.0.0.0/8, ::1
	RefusedLinkLocal           // 169.254.0.0/16, fe80::/10
	RefusedUnspecified         // 0.0.0.0/8, ::
	RefusedMulticast           // 224.0.0.0/4, ff00::/8, 255.255.255.255
	RefusedMetadata            // a cloud's metadata service
	RefusedEmbedded            // an address that hides another: 6to4, Teredo, ...
	RefusedPrivate             // not public, and no endpoint names it
	RefusedNotListed           // outside allowed_ips
	RefusedList                // allowed_ips names what nobody may reach
	RefusedPinned              // not the address of the host
	RefusedPort                // a control-plane port
)

var refusalTexts = [...]string{
	RefusedNoRule:      "internal address: no rule allows any",
	RefusedInvalid:     "internal address: not an address that can be dialled",
	RefusedLoopback:    "internal address: loopback is never allowed",
	RefusedLinkLocal:   "internal address: link-local is never allowed",
	RefusedUnspecified: "internal address: the unspecified address is never allowed",
	RefusedMulticast:   "internal address: multicast is never allowed",
	RefusedMetadata:    "internal address: metadata services are never allowed",
	RefusedEmbedded:    "internal address: the address hides another one",
	RefusedPrivate:     "internal address: private, and no endpoint names it",
	RefusedNotListed:   "allowed_ips check failed",
	RefusedList:        "invalid allowed_ips in policy",
	RefusedPinned:      "trusted-gateway check failed",
	RefusedPort:        "control-plane port is never allowed",
}

// Error returns the refusal in words.
func (r Refusal) Error() string {
	if int(r) < len(refusalTexts) && refusalTexts[r] != "" {
		return refusalTexts[r]
	}
	return "internal address"
}

// Addresses judges addresses on a host. The zero value knows the well-known
// NAT64 prefix only.
type Addresses struct {
	// NAT64 lists further prefixes whose addresses stand for the IPv4 address
	// inside (RFC 6052; 32, 40, 48, 56, 64 or 96 bits).
	NAT64 []netip.Prefix
}

// CheckAddress reports why addr may not be dialled under rule, as a Refusal,
// or nil. The caller must dial exactly the address it checked.
func CheckAddress(addr netip.Addr, rule AddressRule) error {
	return Addresses{}.Check(addr, rule)
}

// Check is CheckAddress with what is known about the host.
func (a Addresses) Check(addr netip.Addr, rule AddressRule) error {
	if rule.mode == noAddress {
		return RefusedNoRule
	}
	if !addr.IsValid() || addr.Zone() != "" {
		return RefusedInvalid
	}
	real := a.unwrap(addr)
	if rule.mode != publicOnly && slices.Contains(policy.ControlPorts, rule.port) {
		return RefusedPort
	}
	if rule.mode == pinnedTo {
		if real != rule.pinned {
			return RefusedPinned
		}
		if c := classify(real); c == RefusedLoopback || c == RefusedLinkLocal || c == RefusedPrivate {
			return nil
		} else if c != 0 {
			return c
		}
		return nil
	}
	class := classify(real)
	if class != 0 && class != RefusedPrivate {
		return class
	}
	switch rule.mode {
	case named:
		return nil
	case listedOnly:
		if rule.allowed == nil {
			return RefusedList
		}
		for _, p := range rule.allowed {
			if p.Contains(real) || p.Contains(addr) {
				return nil
			}
		}
		return RefusedNotListed
	case publicOnly:
		if class == RefusedPrivate {
			return RefusedPrivate
		}
		return nil
	case noAddress, pinnedTo:
	}
	return RefusedNoRule
}
