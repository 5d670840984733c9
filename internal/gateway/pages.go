package gateway

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"google.golang.org/protobuf/proto"

	"openshell.dev/openshell/internal/store"
)

// maxPageBytes keeps a page below the 4 MiB that a stock client accepts.
const maxPageBytes = 3 << 20

// pageSize applies the contract's default and limit.
func pageSize(n int32) (int, error) {
	switch {
	case n < 0:
		return 0, invalid("page_size", "page_size must not be negative")
	case n == 0:
		return 100, nil
	}
	return min(int(n), 1000), nil
}

// pager binds tokens to one list with its parameters. A token is a place in
// an order, not a permission.
type pager struct{ bind [8]byte }

// newPager makes the pager of a request, whose page fields take no part.
func newPager(rpc string, request proto.Message) pager {
	m := proto.Clone(request)
	fields := m.ProtoReflect().Descriptor().Fields()
	for _, name := range []string{"page_size", "page_token"} {
		if f := fields.ByTextName(name); f != nil {
			m.ProtoReflect().Clear(f)
		}
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		raw = nil // our own message: cannot fail
	}
	sum := sha256.Sum256(append([]byte(rpc+"\x00"), raw...))
	var p pager
	copy(p.bind[:], sum[:])
	return p
}

func (p pager) token(k store.Key) string {
	b := append([]byte{1}, p.bind[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(k.Order))
	return base64.RawURLEncoding.EncodeToString(append(b, k.ID...))
}

func (p pager) key(token string) (store.Key, error) {
	if token == "" {
		return store.Key{}, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) < 18 || len(b) > 256 || b[0] != 1 || [8]byte(b[1:9]) != p.bind {
		return store.Key{}, invalid("page_token", "page_token does not belong to this list and these parameters")
	}
	return store.Key{Order: int64(binary.BigEndian.Uint64(b[9:17])), ID: string(b[17:])}, nil
}
