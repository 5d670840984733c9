// Package l7 holds the facts of one request, as a decision needs them.
//
// It owns the vocabulary between the parsers of the proxy, which make facts of
// bytes, and package decide, which judges them. A fact is what the proxy will
// send, already in its canonical form: nothing is decided about one spelling
// and sent in another. It decides nothing and reads nothing.
package l7

// Facts is one request, or one message on a WebSocket. The zero value is a
// request that no rule allows.
type Facts struct {
	// Method is the HTTP method as sent. For a message of a WebSocket it is
	// WebSocketText, and Path and Query are those of the upgrade.
	Method string
	// Path is the canonical path: absolute, decoded where that is without
	// loss, no dot segments, no query.
	Path string
	// EncodedSlash reports that the path holds "%2F".
	EncodedSlash bool
	// Query has the decoded names and values in the order of the request.
	Query []Param
	// Upgrade reports that the request asks for another protocol.
	Upgrade bool
	// WebSocket reports that it does so as RFC 6455 wants, beside Upgrade.
	WebSocket bool

	GraphQL *GraphQL // of a body or message that was read as GraphQL
	RPC     *RPC     // of a body that was read as JSON-RPC
}

// WebSocketText is the method of a complete text message from the client.
const WebSocketText = "WEBSOCKET_TEXT"

// Param is one name and value of a query.
type Param struct{ Name, Value string }

// GraphQL is what a request asks of a GraphQL server.
type GraphQL struct {
	// Malformed says why the document cannot be judged; empty if it can.
	Malformed  string
	Operations []Operation
}

// Operation is one GraphQL operation.
type Operation struct {
	Type   string // query, mutation or subscription
	Name   string
	Fields []string // root fields, fragments followed
	// Persisted is the hash or id of a query that was sent without text.
	Persisted string
}

// RPC is what a JSON-RPC or MCP request says.
type RPC struct {
	// Malformed says why the body cannot be judged; empty if it can.
	Malformed string
	Batch     bool
	Messages  []Message
	// Receive reports the request for the server's stream: GET, an SSE accept
	// header, no body.
	Receive bool
	// Revision is the MCP-Protocol-Version header without surrounding blanks;
	// Revisions is how many there are.
	Revision  string
	Revisions int
}

// Message is one JSON-RPC message.
type Message struct {
	Kind   MessageKind
	Method string
	// Tool is params.name of tools/call.
	Tool string
}

// MessageKind is what a JSON-RPC message is.
type MessageKind uint8

// The kinds.
const (
	Invalid      MessageKind = iota
	Call                     // method and id
	Notification             // method, no id
	Response                 // result or error
)
