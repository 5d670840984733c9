package decide

import (
	"strings"

	"openshell.dev/openshell/internal/l7"
)

// malformedGraphQL finds documents that cannot be judged.
func malformedGraphQL(r *l7.Facts) Reason {
	if r.GraphQL == nil || r.GraphQL.Malformed != "" || len(r.GraphQL.Operations) == 0 {
		return GraphQLMalformed
	}
	return NoReason
}

// known returns the operation that the rules judge: the registered one for a
// query that was sent as a hash, nil if none may stand for it.
func (in *inspection) known(op *l7.Operation) (kind, name string, fields []string, ok bool) {
	if op.Persisted == "" {
		return op.Type, op.Name, op.Fields, true
	}
	if q := in.persisted[op.Persisted]; in.registered && q != nil {
		return q.OperationType, q.OperationName, q.Fields, true
	}
	return "", "", nil, false
}

// graphQLAllowed reports whether every operation is allowed by some rule.
func (a *asking) graphQLAllowed(in *inspection) bool {
	if a.facts.GraphQL == nil || len(a.facts.GraphQL.Operations) == 0 {
		return false
	}
	for i := range a.facts.GraphQL.Operations {
		kind, name, fields, ok := in.known(&a.facts.GraphQL.Operations[i])
		if !ok {
			a.unregistered = true
			return false
		}
		allowed := false
		for j := range in.allow {
			r := &in.allow[j]
			allowed = allowed || r.graphQL && r.operation(kind, name) && r.allFields(fields)
		}
		if !allowed {
			return false
		}
	}
	return true
}

// graphQLDenied reports whether the rule fires for some operation.
func (a *asking) graphQLDenied(in *inspection, r *l7rule) bool {
	if a.facts.GraphQL == nil {
		return false
	}
	for i := range a.facts.GraphQL.Operations {
		kind, name, fields, ok := in.known(&a.facts.GraphQL.Operations[i])
		if ok && r.operation(kind, name) && r.someField(fields) {
			return true
		}
	}
	return false
}

func (r *l7rule) operation(kind, name string) bool {
	return (r.opType == "*" || strings.EqualFold(r.opType, kind)) && (r.opName == nil || r.opName.Match(name, '.'))
}

// allFields: every root field fits some pattern, and there is one.
func (r *l7rule) allFields(fields []string) bool {
	if len(r.fields) == 0 {
		return true
	}
	for _, f := range fields {
		if !matchAny(r.fields, f) {
			return false
		}
	}
	return len(fields) > 0
}

// someField: one root field that fits is enough to deny.
func (r *l7rule) someField(fields []string) bool {
	if len(r.fields) == 0 {
		return true
	}
	for _, f := range fields {
		if matchAny(r.fields, f) {
			return true
		}
	}
	return false
}
