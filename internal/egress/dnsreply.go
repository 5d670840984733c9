package egress

import (
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
)

// badVersion is the extended response code for an EDNS version we do not
// speak (RFC 6891, 6.1.3).
const badVersion dnsmessage.RCode = 16

// reply is an answer being made. Only the question, as it was asked, and our
// own records ever stand in it.
type reply struct {
	id        uint16
	opcode    dnsmessage.OpCode
	recursion bool
	question  *dnsmessage.Question
	edns      bool
	size      int
	a, aaaa   netip.Addr
}

func (r *reply) pack(code dnsmessage.RCode) []byte {
	b := dnsmessage.NewBuilder(make([]byte, 0, minUDPSize), dnsmessage.Header{
		ID: r.id, Response: true, OpCode: r.opcode, RecursionDesired: r.recursion,
		RecursionAvailable: true, RCode: code & 0xf,
	})
	b.EnableCompression()
	if r.records(&b, code) != nil {
		return nil
	}
	msg, err := b.Finish()
	if err != nil || len(msg) > r.size {
		return nil // one question and one address always fit
	}
	return msg
}

func (r *reply) records(b *dnsmessage.Builder, code dnsmessage.RCode) error {
	if err := b.StartQuestions(); err != nil {
		return err
	}
	if r.question == nil {
		return nil
	}
	if err := b.Question(*r.question); err != nil {
		return err
	}
	if err := b.StartAnswers(); err != nil {
		return err
	}
	h := dnsmessage.ResourceHeader{Name: r.question.Name, Class: dnsmessage.ClassINET, TTL: dnsTTL}
	if r.a.IsValid() {
		if err := b.AResource(h, dnsmessage.AResource{A: r.a.As4()}); err != nil {
			return err
		}
	}
	if r.aaaa.IsValid() {
		if err := b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: r.aaaa.As16()}); err != nil {
			return err
		}
	}
	if !r.edns {
		return nil
	}
	if err := b.StartAdditionals(); err != nil {
		return err
	}
	var opt dnsmessage.ResourceHeader
	if err := opt.SetEDNS0(maxUDPSize, code, false); err != nil {
		return err
	}
	return b.OPTResource(opt, dnsmessage.OPTResource{})
}
