package egress

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"openshell.dev/openshell/internal/event"
)

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefixes(in ...string) (out []netip.Prefix) {
	for _, s := range in {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func tunnel(t testing.TB, b *bench, hostPort string) *net.TCPConn {
	t.Helper()
	c := dial(t, b.explicit)
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\n\r\n", hostPort)
	const want = "HTTP/1.1 200 Connection Established\r\n\r\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("CONNECT: %q %v", got, err)
	}
	return c
}

func TestBytesArriveUnchangedInBothDirections(t *testing.T) {
	up := serve(t, echo)
	b := start(t, Options{Policy: rules{allow: []string{"a.example.com:" + up.port}, private: true}})
	b.zone.names["a.example.com"] = []string{"127.0.0.1"}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c := tunnel(t, b, "a.example.com:"+up.port)
			src := rand.NewChaCha8([32]byte{byte(i)})
			size := int64(1 + i*777_777)
			sent, got := sha256.New(), sha256.New()
			var inner sync.WaitGroup
			inner.Go(func() {
				_, _ = io.CopyN(io.MultiWriter(c, sent), src, size)
				_ = c.CloseWrite()
			})
			n, err := io.Copy(got, c)
			inner.Wait()
			if err != nil || n != size || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
				t.Errorf("%d of %d bytes, %v", n, size, err)
			}
		})
	}
	wg.Wait()
	waitFor(t, "connections to end", func() bool { return b.proxy.Stats().Open == 0 })
	s := b.proxy.Stats()
	if s.Sent != s.Received || s.Sent == 0 || s.Allowed != 8 || s.Relayed != 0 {
		t.Errorf("stats = %+v", s)
	}
}

func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for range 1000 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}

func TestTheServerMaySpeakFirst(t *testing.T) {
	up := serve(t, func(c net.Conn) { _, _ = io.WriteString(c, "220 hello\r\n"); _, _ = io.Copy(io.Discard, c) })
	b := start(t, Options{Policy: rules{allow: []string{"mail.example.com:" + up.port}, private: true}})
	b.zone.names["mail.example.com"] = []string{"127.0.0.1"}
	b.meant(b.synthetic("mail.example.com") + ":" + up.port)
	if got := readLine(t, dial(t, b.caught)); got != "220 hello\r\n" {
		t.Errorf("got %q", got)
	}
}

func TestACutStreamDoesNotLookComplete(t *testing.T) {
	up := serve(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "half of it")
		reset(c)
	})
	b := start(t, Options{Policy: rules{allow: []string{"a.example.com:" + up.port}, private: true}})
	b.zone.names["a.example.com"] = []string{"127.0.0.1"}
	b.meant(b.synthetic("a.example.com") + ":" + up.port)
	if err := wasEnded(t, b.caught); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

func TestANewPolicyCutsOnlyWhatItNoLongerAllows(t *testing.T) {
	up := serve(t, echo)
	allow := func(names ...string) rules {
		r := rules{private: true}
		for _, n := range names {
			r.allow = append(r.allow, n+".example.com:"+up.port)
		}
		return r
	}
	b := start(t, Options{Policy: allow("keep", "cut")})
	b.zone.names["keep.example.com"] = []string{"127.0.0.1"}
	b.zone.names["cut.example.com"] = []string{"127.0.0.1"}
	keep, cut := tunnel(t, b, "keep.example.com:"+up.port), tunnel(t, b, "cut.example.com:"+up.port)
	if n := b.proxy.SetPolicy(allow("keep", "new"), 2); n != 1 {
		t.Errorf("cut %d connections, want 1", n)
	}
	if _, err := io.ReadAll(cut); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection no longer allowed: %v", err)
	}
	_, _ = io.WriteString(keep, "still here\n")
	if got := readLine(t, keep); got != "still here\n" {
		t.Errorf("the connection still allowed: %q", got)
	}
	got := b.events(1, func(e event.Event) bool { return e.Activity == event.NetReset })
	if len(got) != 1 || !strings.HasPrefix(got[0].Detail, "policy changed: ") {
		t.Errorf("events: %+v", got)
	}
	if n := b.proxy.SetPolicy(rules{allow: allow("keep").allow}, 3); n != 1 {
		t.Errorf("an address no longer allowed cut %d, want 1", n)
	}
}

// A connection that is being opened while the policy changes must not slip
// through under the old one.
func TestAPolicyChangeDuringTheDialIsSeen(t *testing.T) {
	up := serve(t, echo)
	gate, reached := make(chan struct{}), make(chan struct{})
	b := start(t, Options{Policy: rules{allow: []string{"a.example.com:" + up.port}, private: true},
		Dial: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			close(reached)
			<-gate
			return dialTCP(ctx, to)
		}})
	b.zone.names["a.example.com"] = []string{"127.0.0.1"}
	c := dial(t, b.explicit)
	fmt.Fprintf(c, "CONNECT a.example.com:%s HTTP/1.1\r\n\r\n", up.port)
	<-reached
	if n := b.proxy.SetPolicy(rules{}, 2); n != 0 {
		t.Errorf("cut %d", n)
	}
	close(gate)
	if got := readLine(t, c); got != "HTTP/1.1 403 Forbidden\r\n" {
		t.Errorf("got %q", got)
	}
	waitFor(t, "the end", func() bool { return b.proxy.Stats().Relayed == 0 })
}

func TestIdleConnectionsEnd(t *testing.T) {
	up := serve(t, echo)
	b := start(t, Options{Policy: rules{allow: []string{"a.example.com:" + up.port}, private: true},
		Limits: Limits{Idle: 200 * time.Millisecond, HalfClosed: 200 * time.Millisecond}})
	b.zone.names["a.example.com"] = []string{"127.0.0.1"}
	if _, err := io.ReadAll(tunnel(t, b, "a.example.com:"+up.port)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

func TestTooManyConnectionsAreReset(t *testing.T) {
	up := serve(t, echo)
	b := start(t, Options{Policy: rules{allow: []string{"a.example.com:" + up.port}, private: true}, Limits: Limits{Connections: 2}})
	b.zone.names["a.example.com"] = []string{"127.0.0.1"}
	tunnel(t, b, "a.example.com:"+up.port)
	tunnel(t, b, "a.example.com:"+up.port)
	if err := wasEnded(t, b.explicit); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
	if got := b.events(1, denied); len(got) != 1 || got[0].Detail != "too many connections at once" {
		t.Errorf("events %+v", got)
	}
}

// The io.Reader contract: bytes may come with an error, singly, or not at all.
func TestMoveObeysTheReaderContract(t *testing.T) {
	text := strings.Repeat("0123456789", 5000)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"data with EOF": iotest.DataErrReader,
		"one byte":      iotest.OneByteReader,
		"half":          iotest.HalfReader,
		"empty reads":   func(r io.Reader) io.Reader { return &hesitant{r: r} },
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			var n atomic.Uint64
			if err := move(&out, readerConn{r: wrap(strings.NewReader(text))}, &n); err != nil || out.String() != text || n.Load() != uint64(len(text)) {
				t.Errorf("%d bytes, %v", out.Len(), err)
			}
		})
	}
	var out bytes.Buffer
	var n atomic.Uint64
	broken := io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(syscall.ECONNRESET))
	if err := move(&out, readerConn{r: broken}, &n); !errors.Is(err, syscall.ECONNRESET) || out.String() != "abc" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

type hesitant struct {
	r io.Reader
	n int
}

func (h *hesitant) Read(p []byte) (int, error) {
	if h.n++; h.n%2 == 0 {
		return 0, nil
	}
	return h.r.Read(p)
}

type readerConn struct {
	net.Conn
	r io.Reader
}

func (c readerConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func TestLargeBuffersAreBoundedAndGivenBack(t *testing.T) {
	before := largeInUse.Load()
	var held []*[]byte
	large := 0
	for range 3 * maxLarge {
		b := takeBuffer(true)
		if len(*b) == largeBuffer {
			large++
		}
		held = append(held, b)
	}
	if large > maxLarge {
		t.Errorf("%d large buffers, at most %d", large, maxLarge)
	}
	for _, b := range held {
		giveBuffer(b)
	}
	if got := largeInUse.Load(); got != before {
		t.Errorf("%d large buffers in use, want %d", got, before)
	}
}

func TestManyIdleConnectionsHoldLittle(t *testing.T) {
	up := serve(t, echo)
	b := start(t, Options{Policy: rules{allow: []string{"a.example.com:" + up.port}, private: true}})
	b.zone.names["a.example.com"] = []string{"127.0.0.1"}
	const many = 300
	var all []*net.TCPConn
	for range many {
		c := tunnel(t, b, "a.example.com:"+up.port)
		_, _ = io.WriteString(c, "x")
		var one [1]byte
		if _, err := io.ReadFull(c, one[:]); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	waitFor(t, "the bytes to be counted", func() bool {
		s := b.proxy.Stats()
		return s.Relayed == many && s.Sent == many && s.Received == many
	})
	if got := largeInUse.Load(); got != 0 {
		t.Errorf("%d large buffers held by idle connections", got)
	}
	for _, c := range all {
		_ = c.Close()
	}
	waitFor(t, "all to end", func() bool { return b.proxy.Stats().Open == 0 })
}

func TestAReaderThatDoesNotReadHoldsTheWriterBack(t *testing.T) {
	var sent atomic.Int64
	up := serve(t, func(c net.Conn) {
		block := make([]byte, 64<<10)
		for {
			n, err := c.Write(block)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	b := start(t, Options{Policy: rules{allow: []string{"a.example.com:" + up.port}, private: true}})
	b.zone.names["a.example.com"] = []string{"127.0.0.1"}
	c := tunnel(t, b, "a.example.com:"+up.port)
	last := int64(-1)
	waitFor(t, "the upstream to be held back", func() bool {
		now := sent.Load()
		held := now == last && now > 0
		last = now
		return held
	})
	if _, err := io.CopyN(io.Discard, c, last+1<<20); err != nil { // and it goes on
		t.Error(err)
	}
}

func TestPoliciesMayChangeAtAnyMoment(t *testing.T) {
	up := serve(t, echo)
	yes := rules{allow: []string{"a.example.com:" + up.port}, private: true}
	b := start(t, Options{Policy: yes})
	b.zone.names["a.example.com"] = []string{"127.0.0.1"}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := uint64(2); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if n%2 == 0 {
				b.proxy.SetPolicy(rules{}, n)
			} else {
				b.proxy.SetPolicy(yes, n)
			}
		}
	})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for range 50 {
				c, err := net.Dial("tcp", b.explicit)
				if err != nil {
					continue
				}
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				fmt.Fprintf(c, "CONNECT a.example.com:%s HTTP/1.1\r\n\r\n", up.port)
				_, _ = io.CopyN(io.Discard, c, 12)
				_ = c.Close()
			}
		})
	}
	clients.Wait()
	close(stop)
	wg.Wait()
	b.proxy.SetPolicy(rules{}, 0)
	waitFor(t, "the last connection to end", func() bool { s := b.proxy.Stats(); return s.Relayed == 0 && s.Open == 0 })
}
