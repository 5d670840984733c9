package cli

import (
	"bytes"
	"context"
	"flag"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the expected output in the scripts")

func TestMain(m *testing.M) {
	if os.Getenv(realVar) != "" {
		os.Exit(m.Run()) // a child that runs the built programs, not us
	}
	testscript.Main(m, map[string]func(){
		"openshell": func() { os.Exit(Main(context.Background(), os.Args[1:])) },
	})
}

// Each script is one command, against a gateway of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       *update,
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			f := startFake(e.T().(testing.TB))
			e.Values["fake"] = f
			e.Setenv("URL", f.url)
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			e.Setenv("OPENSHELL_GATEWAY_ENDPOINT", f.url)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("XDG_CONFIG_HOME", e.WorkDir+"/config")
			e.Setenv("XDG_STATE_HOME", e.WorkDir+"/state")
			e.Setenv("OPENSHELL_SYSTEM_GATEWAY_DIR", e.WorkDir+"/etc")
			e.Setenv("FREE", freeAddress(e.T()))
			e.Defer(func() { endForwards(e.WorkDir + "/config/openshell") })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"version-is": func(ts *testscript.TestScript, _ bool, args []string) {
				f := fakeOf(ts)
				f.mu.Lock()
				defer f.mu.Unlock()
				f.version = args[0]
			},
			"drop": func(ts *testscript.TestScript, _ bool, args []string) {
				f := fakeOf(ts)
				f.mu.Lock()
				defer f.mu.Unlock()
				f.boxes[args[0]].drop++
			},
			"revoked": func(ts *testscript.TestScript, _ bool, _ []string) {
				f := fakeOf(ts)
				f.mu.Lock()
				defer f.mu.Unlock()
				if f.logins == 0 || f.revoked != f.logins {
					ts.Fatalf("%d sessions, %d revoked", f.logins, f.revoked)
				}
			},
			"say":  say,
			"type": typeKeys,
			"busy": busy,
			"gone": func(ts *testscript.TestScript, neg bool, args []string) {
				f := fakeOf(ts)
				f.mu.Lock()
				defer f.mu.Unlock()
				if _, there := f.boxes[args[0]]; there != neg {
					ts.Fatalf("sandbox %s there: %v", args[0], there)
				}
			},
		},
	})
}

func fakeOf(ts *testscript.TestScript) *fake { return ts.Value("fake").(*fake) }

func freeAddress(t testscript.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := strings.Cut(l.Addr().String(), ":")
	return port
}

// say PORT WORD sends a word to a local port and shows the answer; it waits
// for the port to open.
func say(ts *testscript.TestScript, neg bool, args []string) {
	var c net.Conn
	var err error
	for range 200 {
		if c, err = net.Dial("tcp", "127.0.0.1:"+args[0]); err == nil || neg {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if neg {
		if err == nil {
			ts.Fatalf("port %s is open", args[0])
		}
		return
	}
	ts.Check(err)
	defer c.Close()
	ts.Check(c.SetDeadline(time.Now().Add(10 * time.Second)))
	_, err = io.WriteString(c, args[1])
	ts.Check(err)
	ts.Check(c.(*net.TCPConn).CloseWrite())
	body, err := io.ReadAll(c)
	ts.Check(err)
	if want := strings.ToUpper(args[1]); string(body) != want {
		ts.Fatalf("answer %q, want %q", body, want)
	}
}

// busy takes a port for the rest of the script.
func busy(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:"+args[0])
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
}

// type WAIT KEYS CODE COMMAND... runs a command on a terminal of its own,
// types KEYS (Go escapes) once WAIT is shown, expects the exit code and leaves
// what was shown in the file screen.
func typeKeys(ts *testscript.TestScript, _ bool, args []string) {
	keys, err := strconv.Unquote(`"` + args[1] + `"`)
	ts.Check(err)
	path, err := exec.LookPath(args[3])
	if err != nil {
		path = "" // found by the script's PATH below
	}
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, args[3])); err == nil {
			path = filepath.Join(dir, args[3])
			break
		}
	}
	cmd := exec.Command(path, args[4:]...)
	cmd.Env = append(os.Environ(), "TERM=xterm")
	for _, name := range []string{"HOME", "PATH", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "OPENSHELL_GATEWAY_ENDPOINT"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 77})
	ts.Check(err)
	defer tty.Close()
	late := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	var screen []byte
	buf := make([]byte, 4096)
	for typed := false; ; {
		n, err := tty.Read(buf)
		screen = append(screen, buf[:n]...)
		if !typed && bytes.Contains(screen, []byte(args[0])) {
			typed = true
			_, err := io.WriteString(tty, keys)
			ts.Check(err)
		}
		if err != nil {
			break
		}
	}
	_ = cmd.Wait()
	ts.Check(os.WriteFile(ts.MkAbs("screen"), screen, 0o600))
	if got := strconv.Itoa(cmd.ProcessState.ExitCode()); got != args[2] {
		ts.Fatalf("exit code %s, want %s; the screen:\n%s", got, args[2], screen)
	}
}

// endForwards ends what a script that failed has left in the background.
func endForwards(root string) {
	paths, _ := filepath.Glob(root + "/forwards/*/*.pid")
	for _, path := range paths {
		body, err := os.ReadFile(path)
		parts := strings.Split(string(body), "\t")
		if err != nil || len(parts) != 3 {
			continue
		}
		if pid, err := strconv.Atoi(parts[0]); err == nil {
			r := forwardRecord{PID: pid, ID: parts[1], path: path}
			_ = r.end() // only if it still is that forward
		}
	}
}
