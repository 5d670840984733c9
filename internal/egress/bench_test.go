package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"openshell.dev/openshell/internal/event"
)

// Pass-through against direct: client, proxy and server are processes of
// their own on the same cores. Direct and proxied rounds alternate, and the
// ratio of their medians is the figure; nothing is asserted.
//
//	go test -run '^$' -bench PassThrough -benchtime 1x ./internal/egress
//
// EGRESS_PROFILE=file writes a CPU profile of the proxy, EGRESS_PROCS=n limits
// its processors.
func BenchmarkPassThrough(b *testing.B) {
	line, _ := role(b, "server", nil)
	target, cert, _ := strings.Cut(line, " ")
	proxy, pid := role(b, "proxy", []string{"EGRESS_TARGET=" + target})
	pool := x509.NewCertPool()
	if data, err := os.ReadFile(cert); err != nil || !pool.AppendCertsFromPEM(data) {
		b.Fatal("no certificate")
	}
	conf := &tls.Config{RootCAs: pool, ServerName: "bench.example.com"}
	for _, load := range []struct {
		name string
		per  float64 // so many make one op
		run  func(*tls.Config, string, time.Duration) (float64, error)
	}{{"bulk_1_MB", 1e6, bulk}, {"keepalive_16", 1, keepAlive}, {"new_1", 1, fresh(1)}, {"new_16", 1, fresh(16)}} {
		b.Run(load.name, func(b *testing.B) {
			var direct, proxied []float64
			var done float64
			var cpu time.Duration
			for range b.N {
				for range 5 {
					for to, list := range map[string]*[]float64{target: &direct, proxy: &proxied} {
						before := cpuTime(pid)
						v, err := load.run(conf, to, benchRound)
						if err != nil {
							b.Fatal(err)
						}
						if to == proxy {
							cpu += cpuTime(pid) - before
							done += v * benchRound.Seconds()
						}
						*list = append(*list, v)
					}
				}
			}
			slices.Sort(direct)
			slices.Sort(proxied)
			d, p := direct[len(direct)/2], proxied[len(proxied)/2]
			b.ReportMetric(p/d, "share")
			b.ReportMetric(cpu.Seconds()*1e6/done*load.per, "proxy-us/op")
			b.ReportMetric(d, "direct/s")
			b.ReportMetric(p, "proxied/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

const (
	benchBody  = 1024
	benchRound = 700 * time.Millisecond
)

// cpuTime is what the threads of a process have used so far.
func cpuTime(pid int) time.Duration {
	var total time.Duration
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, f := range files {
		var ns int64
		data, _ := os.ReadFile(f)
		_, _ = fmt.Sscan(string(data), &ns)
		total += time.Duration(ns)
	}
	return total
}

// role runs this test binary as another process and returns its first line.
func role(b *testing.B, name string, env []string) (line string, pid int) {
	b.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), append(env, "EGRESS_ROLE="+name, "EGRESS_DIR="+b.TempDir())...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	s, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(s), cmd.Process.Pid
}

// playRole is the body of other processes; each ends with its stdin.
func playRole(name string) error {
	switch name {
	case "server":
		return benchServer()
	case "proxy":
		return benchProxy()
	case "inside":
		return liveInside()
	}
	return fmt.Errorf("no role %q", name)
}

func benchServer() error {
	var t roleTB
	cert, _ := certificate(t, "bench.example.com")
	file := filepath.Join(os.Getenv("EGRESS_DIR"), "cert.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o600); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	body, block := make([]byte, benchBody), make([]byte, 256<<10)
	srv := &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true, NextProtos: []string{"http/1.1"}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for r.URL.Path == "/bulk" {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
			_, _ = w.Write(body)
		}),
	}
	fmt.Println(l.Addr(), file)
	go func() { _ = srv.ServeTLS(l, "", "") }()
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func benchProxy() error {
	if n, err := strconv.Atoi(os.Getenv("EGRESS_PROCS")); err == nil {
		runtime.GOMAXPROCS(n)
	}
	target := netip.MustParseAddrPort(os.Getenv("EGRESS_TARGET"))
	if f := os.Getenv("EGRESS_PROFILE"); f != "" {
		out, err := os.Create(f)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(out); err != nil {
			return err
		}
		defer func() { pprof.StopCPUProfile(); _ = out.Close() }()
	}
	var t roleTB
	curl := newProgram(t, "/usr/bin/curl").executable(t)
	log := event.NewLog(io.Discard, event.LogOptions{})
	defer log.Close()
	z := &zone{names: map[string][]string{"bench.example.com": {"127.0.0.1"}}}
	p := New(Options{Policy: rules{wild: []string{".example.com"}, private: true}, Resolver: z, Events: log})
	a, _ := p.names.address("bench.example.com", false)
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	ctx, cancel := context.WithCancel(context.Background())
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); cancel(); p.Close(ctx) }()
	return p.Serve(ctx, &Redirect{Caught: []*net.TCPListener{l},
		Original: func(*net.TCPConn) (netip.AddrPort, error) { return netip.AddrPortFrom(a, target.Port()), nil },
		Owners: ownerFunc(func(context.Context, netip.AddrPort, netip.AddrPort) (Owner, error) {
			return Owner{[]Holder{{PID: 1, Chain: []Executable{curl}}}}, nil
		})})
}

// roleTB lets the helpers of tests run outside one.
type roleTB struct{ testing.TB }

func (roleTB) Helper()         {}
func (roleTB) TempDir() string { return os.Getenv("EGRESS_DIR") }
func (roleTB) Fatal(a ...any)  { panic(fmt.Sprint(a...)) }

func bulk(conf *tls.Config, to string, d time.Duration) (float64, error) {
	c, err := tls.Dial("tcp", to, conf)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := io.WriteString(c, benchGet("/bulk")); err != nil {
		return 0, err
	}
	buf := make([]byte, 256<<10)
	total := 0
	start := time.Now()
	for time.Since(start) < d {
		n, err := c.Read(buf)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return float64(total) / time.Since(start).Seconds(), nil
}

func keepAlive(conf *tls.Config, to string, d time.Duration) (float64, error) {
	var n atomic.Int64
	err := parallel(16, func(stop func() bool) error {
		c, err := tls.Dial("tcp", to, conf)
		if err != nil {
			return err
		}
		defer c.Close()
		r := bufio.NewReader(c)
		for !stop() {
			if _, err := io.WriteString(c, benchGet("/")); err != nil {
				return err
			}
			if err := benchRead(r); err != nil {
				return err
			}
			n.Add(1)
		}
		return nil
	}, d)
	return float64(n.Load()) / d.Seconds(), err
}

func fresh(width int) func(*tls.Config, string, time.Duration) (float64, error) {
	return func(conf *tls.Config, to string, d time.Duration) (float64, error) {
		var n atomic.Int64
		err := parallel(width, func(stop func() bool) error {
			for !stop() {
				c, err := tls.Dial("tcp", to, conf)
				if err != nil {
					return err
				}
				if _, err := io.WriteString(c, benchGet("/")); err != nil {
					return err
				}
				if err := benchRead(bufio.NewReader(c)); err != nil {
					return err
				}
				_ = c.Close()
				n.Add(1)
			}
			return nil
		}, d)
		return float64(n.Load()) / d.Seconds(), err
	}
}

func benchGet(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: bench.example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
}

// benchRead takes one answer off r.
func benchRead(r *bufio.Reader) error {
	raw, err := peekHead(r, maxResponseHead)
	if err != nil {
		return err
	}
	if !strings.Contains(string(raw), "Content-Length: 1024\r\n") {
		return fmt.Errorf("answer %q", raw)
	}
	_, err = r.Discard(benchBody)
	return err
}

func parallel(width int, f func(stop func() bool) error, d time.Duration) error {
	end := time.Now().Add(d)
	var wg sync.WaitGroup
	errs := make(chan error, width)
	for range width {
		wg.Go(func() {
			if err := f(func() bool { return time.Now().After(end) }); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}
