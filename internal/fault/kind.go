package fault

// Kind is the closed set of failures. The zero value is Internal, so that an
// unclassified error never looks harmless.
type Kind uint8

// The kinds, with the canonical RPC code they become (google.rpc.Code).
const (
	Internal           Kind = iota // a bug or a broken machine
	InvalidArgument                // the caller's words are wrong
	NotFound                       // no such object
	AlreadyExists                  // the name is taken
	FailedPrecondition             // right words, wrong state
	Conflict                       // somebody changed it meanwhile
	PermissionDenied               // known caller, not allowed
	Unauthenticated                // unknown caller
	Exhausted                      // a limit is reached, a disk is full
	Unavailable                    // try again later
	DeadlineExceeded               // took too long
	Unsupported                    // this host, driver or version cannot
	OutOfRange                     // a cursor or offset is gone
	Cancelled                      // the caller left
)

var kinds = [...]struct {
	name string
	code uint32
	exit int
}{
	Internal:           {"internal error", 13, 1},
	InvalidArgument:    {"invalid argument", 3, 2},
	NotFound:           {"not found", 5, 1},
	AlreadyExists:      {"already exists", 6, 1},
	FailedPrecondition: {"failed precondition", 9, 1},
	Conflict:           {"conflict", 10, 1},
	PermissionDenied:   {"permission denied", 7, 1},
	Unauthenticated:    {"unauthenticated", 16, 1},
	Exhausted:          {"exhausted", 8, 1},
	Unavailable:        {"unavailable", 14, 1},
	DeadlineExceeded:   {"deadline exceeded", 4, 1},
	Unsupported:        {"unsupported", 12, 1},
	OutOfRange:         {"out of range", 11, 1},
	Cancelled:          {"cancelled", 1, 1},
}

// String returns the kind in words.
func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k].name
	}
	return kinds[Internal].name
}

// Code returns the canonical RPC code (google.rpc.Code) of the kind.
func (k Kind) Code() uint32 {
	if int(k) < len(kinds) {
		return kinds[k].code
	}
	return kinds[Internal].code
}

// Exit returns the exit code of a command that ends with this kind: 2 for
// misuse, 1 for everything else. Starting a command has codes of its own
// (125, 126, 127), which the run command decides.
func (k Kind) Exit() int {
	if int(k) < len(kinds) {
		return kinds[k].exit
	}
	return 1
}

// FromCode returns the kind of a canonical RPC code, Internal if unknown.
func FromCode(code uint32) Kind {
	for k, row := range kinds {
		if row.code == code {
			return Kind(k)
		}
	}
	return Internal
}
