package egress

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openshell.dev/openshell/internal/event"
	"openshell.dev/openshell/internal/identity"
)

// TestMain plays the other processes of a benchmark, and fails if a test left a goroutine of this package behind.
func TestMain(m *testing.M) {
	if name := os.Getenv("EGRESS_ROLE"); name != "" {
		if err := playRole(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	for range 100 {
		if code != 0 || leaked() == "" {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if l := leaked(); code == 0 && l != "" {
		fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", l)
		code = 1
	}
	os.Exit(code)
}

func leaked() string {
	var b strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&b, 2)
	var out []string
	for g := range strings.SplitSeq(b.String(), "\n\n") {
		if strings.Contains(g, "internal/egress.") && !strings.Contains(g, "TestMain") {
			out = append(out, g)
		}
	}
	return strings.Join(out, "\n\n")
}

// rules is a policy for tests.
type rules struct {
	allow   []string // host:port
	wild    []string // suffixes like .example.com, any port
	private bool     // private and loopback addresses may be dialled
	program string   // only this one, if set
}

func (r rules) Names(host string) bool {
	for _, a := range r.allow {
		if h, _, _ := net.SplitHostPort(a); h == host {
			return true
		}
	}
	return slices.ContainsFunc(r.wild, func(w string) bool { return strings.HasSuffix(host, w) })
}

func (r rules) Connect(f Flow) Verdict {
	to := net.JoinHostPort(f.Host, fmt.Sprint(f.Port))
	if !slices.Contains(r.allow, to) && !slices.ContainsFunc(r.wild, func(w string) bool { return strings.HasSuffix(f.Host, w) }) {
		return Verdict{Reason: "endpoint " + to + " is not allowed by any policy"}
	}
	if r.program != "" && !slices.Contains(f.Chain, r.program) {
		return Verdict{Rule: "r", Reason: "binary '" + f.Chain[0] + "' not allowed in policy 'r'"}
	}
	return Verdict{Allow: true, Rule: "r"}
}

func (r rules) Address(_ Flow, _ Verdict, a netip.Addr) error {
	if !r.private && (a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast()) {
		return errors.New("internal address")
	}
	return nil
}

// zone is a resolver that the test owns and that counts what it is asked.
type zone struct {
	mu    sync.Mutex
	names map[string][]string
	asked []string
}

func (z *zone) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked = append(z.asked, host)
	var out []netip.Addr
	for _, a := range z.names[strings.TrimSuffix(host, ".")] {
		out = append(out, netip.MustParseAddr(a))
	}
	if out == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return out, nil
}

func (z *zone) questions() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.asked)
}

// program is an executable file for owners.
type program struct {
	path string
	file string
}

func newProgram(t testing.TB, path string) program {
	t.Helper()
	f := t.TempDir() + "/exe"
	if err := os.WriteFile(f, []byte(path), 0o755); err != nil {
		t.Fatal(err)
	}
	return program{path, f}
}

func (p program) executable(t testing.TB) Executable {
	t.Helper()
	f, err := os.Open(p.file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := identity.Stat(f)
	if err != nil {
		t.Fatal(err)
	}
	return Executable{Path: p.path, Version: v, Open: func() (*os.File, error) { return os.Open(p.file) }}
}

type ownerFunc func(ctx context.Context, client, original netip.AddrPort) (Owner, error)

func (f ownerFunc) Owner(ctx context.Context, c, o netip.AddrPort) (Owner, error) {
	return f(ctx, c, o)
}

// bench is one proxy with everything around it.
type bench struct {
	t        testing.TB
	proxy    *Proxy
	ring     *event.Ring
	zone     *zone
	caught   string // address of the transparent listener
	explicit string
	dnsUDP   string
	dnsTCP   string

	mu       sync.Mutex
	original netip.AddrPort // what the next caught connections meant
	owner    func() (Owner, error)
}

func start(t testing.TB, opts Options) *bench {
	t.Helper()
	b := &bench{t: t, ring: event.NewRing(4096), zone: &zone{names: map[string][]string{}}}
	curl := newProgram(t, "/usr/bin/curl").executable(t)
	shell := newProgram(t, "/bin/sh").executable(t)
	b.owner = func() (Owner, error) {
		return Owner{Holders: []Holder{{PID: 64, Chain: []Executable{curl, shell}}}}, nil
	}
	if opts.Resolver == nil {
		opts.Resolver = b.zone
	}
	if opts.Events == nil {
		opts.Events = b.ring
	}
	b.proxy = New(opts)
	caught, explicit, dnsTCP := listen(t), listen(t), listen(t)
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	b.caught, b.explicit, b.dnsTCP, b.dnsUDP = caught.Addr().String(), explicit.Addr().String(), dnsTCP.Addr().String(), udp.LocalAddr().String()
	src := &Redirect{
		Caught: []*net.TCPListener{caught}, Explicit: []*net.TCPListener{explicit},
		DNS: []*net.UDPConn{udp}, DNSTCP: []*net.TCPListener{dnsTCP},
		Original: func(*net.TCPConn) (netip.AddrPort, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.original, nil
		},
		Owners: ownerFunc(func(context.Context, netip.AddrPort, netip.AddrPort) (Owner, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.owner()
		}),
	}
	done := make(chan error, 1)
	go func() { done <- b.proxy.Serve(context.Background(), src) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		b.proxy.Close(ctx)
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return b
}

func listen(t testing.TB) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// meant sets the destination of the caught connections that follow.
func (b *bench) meant(to string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.original = netip.MustParseAddrPort(to)
}

func (b *bench) owned(f func() (Owner, error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.owner = f
}

// synthetic returns the address the policy DNS gives name.
func (b *bench) synthetic(name string) string {
	b.t.Helper()
	a, ok := b.proxy.names.address(name, false)
	if !ok {
		b.t.Fatal("no address left")
	}
	return a.String()
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// wasEnded connects, sends nothing, and returns how it ended. A reset may
// already be seen by connect.
func wasEnded(t testing.TB, addr string) error {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = io.ReadAll(c)
	return err
}

// server is an upstream that counts its connections.
type server struct {
	addr string
	port string
	hits atomic.Int64
}

// serve runs f for each connection until the test ends.
func serve(t testing.TB, f func(net.Conn)) *server {
	t.Helper()
	l := listen(t)
	s := &server{addr: l.Addr().String()}
	_, s.port, _ = net.SplitHostPort(s.addr)
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.hits.Add(1)
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				f(c)
				_ = c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return s
}

func echo(c net.Conn) {
	_, _ = io.Copy(c, c)
}

// raw answers each request head with reply and records what it got.
type raw struct {
	mu   sync.Mutex
	seen []byte
}

func (r *raw) got() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.seen)
}

func (r *raw) serve(reply string) func(net.Conn) {
	return func(c net.Conn) {
		buf := make([]byte, 64<<10)
		answered := false
		for {
			n, err := c.Read(buf)
			r.mu.Lock()
			r.seen = append(r.seen, buf[:n]...)
			whole := strings.Contains(string(r.seen), "\r\n\r\n")
			r.mu.Unlock()
			if whole && !answered {
				answered = true
				_, _ = io.WriteString(c, reply)
			}
			if err != nil {
				return
			}
		}
	}
}

func exchange(t testing.TB, addr, request string) string {
	t.Helper()
	c := dial(t, addr)
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(c)
	return string(got)
}

func readLine(t testing.TB, c net.Conn) string {
	t.Helper()
	s, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatalf("after %q: %v", s, err)
	}
	return s
}

// events returns the events of a class after waiting for n of them.
func (b *bench) events(n int, want func(event.Event) bool) []event.Event {
	b.t.Helper()
	var out []event.Event
	for range 200 {
		out = out[:0]
		for _, e := range b.ring.Events() {
			if want(e) {
				out = append(out, e)
			}
		}
		if len(out) >= n {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return out
}

func denied(e event.Event) bool  { return e.Action == event.Denied }
func allowed(e event.Event) bool { return e.Action == event.Allowed }

// tlsServer returns an HTTPS upstream's configuration and the pool to trust.
func certificate(t testing.TB, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names, NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func okHandler(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, "hello from "+r.Host+r.URL.RequestURI())
}
