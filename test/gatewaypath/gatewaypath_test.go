// Package gatewaypath runs the gateway, the supervisor and the launcher as
// they are shipped, through the API, with a stock gRPC client.
package gatewaypath

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"openshell.dev/openshell/api/gen/datamodelv1"
	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/api/gen/sandboxv1"
	"openshell.dev/openshell/test/built"
	"openshell.dev/openshell/test/person"
)

func TestMain(m *testing.M) {
	code := m.Run()
	built.Clean()
	os.Exit(code)
}

const service = "/openshell.v1.OpenShell/"

// world is a running gateway of a person.
type world struct {
	t     testing.TB
	p     *person.Person
	state string
	cmd   *exec.Cmd
	ended chan error
	conn  *grpc.ClientConn
	args  []string
}

func newWorld(t testing.TB, p *person.Person, args ...string) *world {
	t.Helper()
	w := &world{t: t, p: p, args: args}
	var err error
	if w.state, err = os.MkdirTemp("", "gws"); err != nil { // short, for the socket
		t.Fatal(err)
	}
	if err := os.Chmod(w.state, 0o700); err != nil {
		t.Fatal(err)
	}
	p.Own(w.state)
	t.Cleanup(func() {
		w.removeAll()
		w.end(syscall.SIGTERM)
		_ = os.RemoveAll(w.state)
	})
	w.begin("0")
	return w
}

var serves = regexp.MustCompile(`msg="gateway serves" address=127\.0\.0\.1:(\d+)`)

// begin starts the gateway and waits until it says where it listens.
func (w *world) begin(port string) {
	w.t.Helper()
	args := append([]string{"--state-dir", w.state, "--port", port, "--disable-tls", "--allow-unauthenticated-users"}, w.args...)
	w.cmd = w.p.Command(context.Background(), "openshell-gateway", args...)
	w.cmd.Cancel = nil
	out, err := w.cmd.StderrPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.ended = make(chan error, 1)
	found := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(out)
		var tail []string
		for lines.Scan() {
			if m := serves.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
			}
			if os.Getenv("GATEWAY_TEST_LOG") != "" {
				fmt.Fprintln(os.Stderr, lines.Text())
			}
			tail = append(tail[max(0, len(tail)-20):], lines.Text())
		}
		err := w.cmd.Wait()
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, strings.Join(tail, "\n"))
		}
		w.ended <- err
	}()
	select {
	case port = <-found:
	case err := <-w.ended:
		w.t.Fatalf("the gateway ended: %v", err)
	case <-time.After(30 * time.Second):
		w.t.Fatal("the gateway never said where it listens")
	}
	if w.conn, err = grpc.NewClient("passthrough:///127.0.0.1:"+port, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		w.t.Fatal(err)
	}
}

// end ends the gateway by a signal.
func (w *world) end(sig syscall.Signal) {
	w.t.Helper()
	if w.cmd == nil {
		return
	}
	w.conn.Close()
	if err := w.cmd.Process.Signal(sig); err == nil {
		select {
		case err := <-w.ended:
			if err != nil && sig == syscall.SIGTERM {
				w.t.Errorf("the gateway ended with %v", err)
			}
		case <-time.After(20 * time.Second):
			w.t.Error("the gateway does not end")
			_ = w.cmd.Process.Kill()
		}
	}
	w.cmd = nil
}

func (w *world) removeAll() {
	if w.cmd == nil {
		return
	}
	res := &openshellv1.ListSandboxesResponse{}
	if err := w.try("ListSandboxes", &openshellv1.ListSandboxesRequest{WorkspaceScope: scope()}, res); err != nil {
		return
	}
	for _, b := range res.GetSandboxes() {
		_ = w.try("DeleteSandbox", &openshellv1.DeleteSandboxRequest{WorkspaceScope: scope(), Name: b.GetMetadata().GetName()}, &openshellv1.DeleteSandboxResponse{})
	}
}

func (w *world) try(method string, req, res proto.Message) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	return w.conn.Invoke(ctx, service+method, req, res)
}

func (w *world) call(method string, req, res proto.Message) {
	w.t.Helper()
	if err := w.try(method, req, res); err != nil {
		w.t.Fatalf("%s: %v", method, err)
	}
}

func scope() *datamodelv1.WorkspaceSelector {
	return &datamodelv1.WorkspaceSelector{Selection: &datamodelv1.WorkspaceSelector_Workspace{Workspace: "default"}}
}

func (w *world) create(name string, spec *openshellv1.SandboxSpec) *openshellv1.Sandbox {
	w.t.Helper()
	res := &openshellv1.SandboxResponse{}
	w.call("CreateSandbox", &openshellv1.CreateSandboxRequest{WorkspaceScope: scope(), Name: name, Spec: spec}, res)
	return res.GetSandbox()
}

func (w *world) get(name string) *openshellv1.Sandbox {
	w.t.Helper()
	res := &openshellv1.SandboxResponse{}
	w.call("GetSandbox", &openshellv1.GetSandboxRequest{WorkspaceScope: scope(), Name: name}, res)
	return res.GetSandbox()
}

func (w *world) phase(name string, phase openshellv1.SandboxPhase) *openshellv1.Sandbox {
	w.t.Helper()
	limit := time.Now().Add(40 * time.Second)
	for {
		b := w.get(name)
		if b.GetStatus().GetPhase() == phase {
			return b
		}
		if time.Now().After(limit) || (b.GetStatus().GetPhase() == openshellv1.SandboxPhase_SANDBOX_PHASE_ERROR) {
			body, _ := os.ReadFile(filepath.Join(w.state, "sandboxes", b.GetMetadata().GetId(), "supervisor.log"))
			w.t.Fatalf("%s is %v, never %v\n%s", name, b.GetStatus(), phase, body)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

const ready = openshellv1.SandboxPhase_SANDBOX_PHASE_READY

func (w *world) exec(name string, req *openshellv1.ExecSandboxRequest) (stdout string, exit int32, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	req.WorkspaceScope, req.Sandbox = scope(), name
	s, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, service+"ExecSandbox")
	if err != nil {
		return "", 0, err
	}
	if err := s.SendMsg(req); err != nil {
		return "", 0, err
	}
	_ = s.CloseSend()
	exit = -1
	var errput string
	for {
		var e openshellv1.ExecSandboxEvent
		if err := s.RecvMsg(&e); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			if errput != "" && exit != 0 && err == nil {
				stdout += "\nstderr: " + errput
			}
			return stdout, exit, err
		}
		stdout += string(e.GetStdout().GetData())
		errput += string(e.GetStderr().GetData())
		if x := e.GetExit(); x != nil {
			exit = x.GetExitCode()
		}
	}
}

func (w *world) run(name string, argv ...string) string {
	w.t.Helper()
	out, exit, err := w.exec(name, &openshellv1.ExecSandboxRequest{Command: argv})
	if err != nil || exit != 0 {
		w.t.Fatalf("%q in %s: exit %d, %v\n%s", argv, name, exit, err, out)
	}
	return out
}

// supervisor returns the pid of a sandbox's supervisor.
func (w *world) supervisor(b *openshellv1.Sandbox) int {
	w.t.Helper()
	body, err := os.ReadFile(filepath.Join(w.state, "sandboxes", b.GetMetadata().GetId(), "run.json"))
	if err != nil {
		w.t.Fatal(err)
	}
	m := regexp.MustCompile(`"pid":(\d+)`).FindStringSubmatch(string(body))
	if m == nil {
		w.t.Fatalf("no pid in %s", body)
	}
	pid, err := strconv.Atoi(m[1])
	if err != nil {
		w.t.Fatal(err)
	}
	return pid
}

// tree returns a process and its descendants.
func tree(pid int) []int {
	out := []int{pid}
	for i := 0; i < len(out); i++ {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", out[i]))
		for _, f := range files {
			body, _ := os.ReadFile(f)
			for word := range strings.FieldsSeq(string(body)) {
				if n, err := strconv.Atoi(word); err == nil {
					out = append(out, n)
				}
			}
		}
	}
	return out
}

// alive reports whether a process runs; a zombie does not.
func alive(pid int) bool {
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(body), ") Z ") && !strings.Contains(string(body), ") X ")
}

func TestALifeThroughTheAPI(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		w := newWorld(t, p)
		b := w.create("box", &openshellv1.SandboxSpec{Command: []string{"sleep", "600"}, Environment: map[string]string{"COLOUR": "green"}})
		if b := w.phase("box", ready); b.GetHostKeyFingerprint() == "" {
			t.Error("no host key")
		}
		if got := w.run("box", "sh", "-c", "echo $COLOUR; pwd; echo kept > file; echo kept > ~/file; id -u"); !strings.HasPrefix(got, "green\n/sandbox\n") || strings.HasSuffix(got, "\n0\n") {
			t.Errorf("exec says %q", got)
		}
		processes := tree(w.supervisor(b))
		if len(processes) < 3 {
			t.Errorf("processes = %v, want supervisor, launcher and main", processes)
		}
		w.call("StopSandbox", &openshellv1.StopSandboxRequest{WorkspaceScope: scope(), Name: "box"}, &openshellv1.SandboxResponse{})
		w.phase("box", openshellv1.SandboxPhase_SANDBOX_PHASE_STOPPED)
		for _, pid := range processes {
			if alive(pid) {
				t.Errorf("process %d lives after the stop", pid)
			}
		}
		w.call("StartSandbox", &openshellv1.StartSandboxRequest{WorkspaceScope: scope(), Name: "box"}, &openshellv1.SandboxResponse{})
		again := w.phase("box", ready)
		if again.GetStatus().GetMainProcessInstanceId() == b.GetStatus().GetMainProcessInstanceId() {
			t.Error("the same run after a start")
		}
		if got := w.run("box", "sh", "-c", "cat file ~/file; git init -q repo && ls -d repo/.git"); got != "kept\nkept\nrepo/.git\n" {
			t.Errorf("after the start: %q", got)
		}
		processes = tree(w.supervisor(again))
		del := &openshellv1.DeleteSandboxResponse{}
		w.call("DeleteSandbox", &openshellv1.DeleteSandboxRequest{WorkspaceScope: scope(), Name: "box"}, del)
		if del.GetOutcome() != openshellv1.DeletionOutcome_DELETION_OUTCOME_COMPLETED {
			t.Errorf("delete = %v", del)
		}
		for _, pid := range processes {
			if alive(pid) {
				t.Errorf("process %d lives after the deletion", pid)
			}
		}
		if left, _ := os.ReadDir(filepath.Join(w.state, "sandboxes")); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestTheEndOfTheMainProcess(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		w := newWorld(t, p)
		w.create("good", &openshellv1.SandboxSpec{Command: []string{"true"}})
		if b := w.phase("good", openshellv1.SandboxPhase_SANDBOX_PHASE_COMPLETED); b.GetStatus().ExitCode == nil || b.GetStatus().GetExitCode() != 0 {
			t.Errorf("good = %v", b.GetStatus())
		}
		w.create("bad", &openshellv1.SandboxSpec{Command: []string{"sh", "-c", "exit 7"}})
		w.create("missing", &openshellv1.SandboxSpec{Command: []string{"no-such-program"}})
		for name, want := range map[string]string{"bad": "MainProcessFailed", "missing": "StartFailed"} {
			limit := time.Now().Add(20 * time.Second)
			for {
				b := w.get(name)
				if c := b.GetStatus().GetConditions()[0]; b.GetStatus().GetPhase() == openshellv1.SandboxPhase_SANDBOX_PHASE_ERROR {
					if c.GetReason() != want || (name == "bad" && b.GetStatus().GetExitCode() != 7) || (name == "missing" && !strings.Contains(c.GetMessage(), "no-such-program")) {
						t.Errorf("%s = %v", name, b.GetStatus())
					}
					break
				}
				if time.Now().After(limit) {
					t.Fatalf("%s never failed: %v", name, b.GetStatus())
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
	})
}

func TestTenAtOnceDoNotSeeEachOther(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		w := newWorld(t, p)
		var work sync.WaitGroup
		for n := range 10 {
			work.Go(func() {
				res := &openshellv1.SandboxResponse{}
				if err := w.try("CreateSandbox", &openshellv1.CreateSandboxRequest{WorkspaceScope: scope(), Name: fmt.Sprintf("box-%d", n),
					Spec: &openshellv1.SandboxSpec{Command: []string{"sleep", fmt.Sprint(6000 + n)}}}, res); err != nil {
					t.Error(err)
				}
			})
		}
		work.Wait()
		for n := range 10 {
			name := fmt.Sprintf("box-%d", n)
			w.phase(name, ready)
			got := w.run(name, "sh", "-c", "ls /tmp/x; echo mine > /tmp/x; cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o 'sleep 60[0-9][0-9]' | sort -u; hostname")
			if want := fmt.Sprintf("sleep %d\n%s\n", 6000+n, name); got != want {
				t.Errorf("%s sees %q, want %q", name, got, want)
			}
		}
	})
}

func TestAKilledGatewayLosesNothing(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		w := newWorld(t, p)
		w.create("box", &openshellv1.SandboxSpec{Command: []string{"sh", "-c", "echo $$ > /tmp/pid; exec sleep 600"}})
		before := w.phase("box", ready)
		pid := w.run("box", "cat", "/tmp/pid")
		w.create("stopped", &openshellv1.SandboxSpec{Command: []string{"sleep", "600"}})
		w.phase("stopped", ready)
		w.call("StopSandbox", &openshellv1.StopSandboxRequest{WorkspaceScope: scope(), Name: "stopped"}, &openshellv1.SandboxResponse{})
		for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
			w.end(sig)
			w.begin("0")
			after := w.phase("box", ready)
			if after.GetStatus().GetMainProcessInstanceId() != before.GetStatus().GetMainProcessInstanceId() || w.run("box", "cat", "/tmp/pid") != pid {
				t.Errorf("after signal %v the run is another", sig)
			}
			w.phase("stopped", openshellv1.SandboxPhase_SANDBOX_PHASE_STOPPED)
		}
		// A supervisor that dies while the gateway is away is noticed too.
		super := w.supervisor(before)
		w.end(syscall.SIGKILL)
		if err := syscall.Kill(super, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		w.begin("0")
		w.failed("box", "ProcessExited", "") // it may still be dying when the gateway looks
	})
}

// failed waits for a sandbox to fail for a reason.
func (w *world) failed(name, reason, text string) {
	w.t.Helper()
	limit := time.Now().Add(20 * time.Second)
	for {
		b := w.get(name)
		c := b.GetStatus().GetConditions()[0]
		if b.GetStatus().GetPhase() == openshellv1.SandboxPhase_SANDBOX_PHASE_ERROR {
			if c.GetReason() != reason || !strings.Contains(c.GetMessage(), text) {
				w.t.Errorf("condition = %v, want %s with %q", c, reason, text)
			}
			return
		}
		if time.Now().After(limit) {
			w.t.Fatalf("%s never failed: %v", name, b.GetStatus())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestAKilledPartIsReportedWithAReason(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		w := newWorld(t, p)
		for name, part := range map[string]int{"supervisor": 0, "launcher": 1} {
			w.create(name, &openshellv1.SandboxSpec{Command: []string{"sleep", "600"}})
			b := w.phase(name, ready)
			processes := tree(w.supervisor(b))
			if err := syscall.Kill(processes[part], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if part == 0 {
				w.failed(name, "ProcessExited", "signal 9")
			} else {
				w.failed(name, "MainProcessFailed", "signal 9")
			}
			limit := time.Now().Add(10 * time.Second)
			for _, pid := range processes {
				for alive(pid) {
					if time.Now().After(limit) {
						t.Fatalf("process %d of %v lives after the %s was killed", pid, processes, name)
					}
					time.Sleep(5 * time.Millisecond)
				}
			}
			// It can be started again, with what it kept.
			w.call("StartSandbox", &openshellv1.StartSandboxRequest{WorkspaceScope: scope(), Name: name}, &openshellv1.SandboxResponse{})
			w.phase(name, ready)
		}
	})
}

func TestTheRestartPolicy(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		w := newWorld(t, p)
		w.create("box", &openshellv1.SandboxSpec{RestartPolicy: openshellv1.SandboxRestartPolicy_SANDBOX_RESTART_POLICY_ON_FAILURE,
			Command: []string{"sh", "-c", "if [ -e once ]; then exec sleep 600; fi; touch once; exit 3"}})
		limit := time.Now().Add(20 * time.Second)
		for {
			b := w.get("box")
			if b.GetStatus().GetRestartCount() == 1 && b.GetStatus().GetPhase() == ready {
				break
			}
			if time.Now().After(limit) {
				t.Fatalf("never restarted: %v", b.GetStatus())
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
}

func TestAPolicyIsPutInForceWhileItRuns(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		w := newWorld(t, p)
		policy := func(host string) *sandboxv1.SandboxPolicy {
			return &sandboxv1.SandboxPolicy{Version: 1, Filesystem: &sandboxv1.FilesystemPolicy{IncludeWorkdir: true, ReadOnly: []string{"/usr", "/etc", "/bin", "/lib"}, ReadWrite: []string{"/tmp"}},
				NetworkPolicies: map[string]*sandboxv1.NetworkPolicyRule{"a": {
					Endpoints: []*sandboxv1.NetworkEndpoint{{Host: host, Port: 443}}, Binaries: []*sandboxv1.NetworkBinary{{Path: "/usr/bin/curl"}}}}}
		}
		w.create("box", &openshellv1.SandboxSpec{Command: []string{"sleep", "600"}, Policy: policy("one.example.com")})
		if b := w.phase("box", ready); b.GetStatus().GetCurrentPolicyVersion() != 1 {
			t.Errorf("status = %v", b.GetStatus())
		}
		res := &openshellv1.UpdateConfigResponse{}
		w.call("UpdateConfig", &openshellv1.UpdateConfigRequest{WorkspaceScope: scope(), Sandbox: "box", Policy: policy("two.example.com")}, res)
		limit := time.Now().Add(10 * time.Second)
		for {
			st := &openshellv1.GetSandboxPolicyStatusResponse{}
			w.call("GetSandboxPolicyStatus", &openshellv1.GetSandboxPolicyStatusRequest{WorkspaceScope: scope(), Sandbox: "box"}, st)
			if st.GetRevision().GetStatus() == openshellv1.PolicyStatus_POLICY_STATUS_LOADED && st.GetActiveVersion() == res.GetVersion() {
				break
			}
			if time.Now().After(limit) || st.GetRevision().GetStatus() == openshellv1.PolicyStatus_POLICY_STATUS_FAILED {
				t.Fatalf("policy = %v", st)
			}
			time.Sleep(5 * time.Millisecond)
		}
		if err := w.try("UpdateConfig", &openshellv1.UpdateConfigRequest{WorkspaceScope: scope(), Sandbox: "box", Policy: &sandboxv1.SandboxPolicy{
			NetworkPolicies: map[string]*sandboxv1.NetworkPolicyRule{"a": {Endpoints: []*sandboxv1.NetworkEndpoint{{Host: "*.com", Port: 443}}}}}}, res); status.Code(err) != codes.InvalidArgument {
			t.Errorf("a bad policy: %v", err)
		}
	})
}

func TestALostGatewayStopsTheSandbox(t *testing.T) {
	file := func(p *person.Person) string {
		return p.File("gateway.toml", "[openshell]\nversion = 2\n[openshell.gateway.failure_handling]\ngateway_outage_limit_secs = 1\n")
	}
	person.Each(t, func(t *testing.T, p *person.Person) {
		w := newWorld(t, p, "--config", file(p))
		w.create("box", &openshellv1.SandboxSpec{Command: []string{"sleep", "600"}})
		processes := tree(w.supervisor(w.phase("box", ready)))
		w.end(syscall.SIGKILL)
		limit := time.Now().Add(30 * time.Second)
		for _, pid := range processes {
			for alive(pid) {
				if time.Now().After(limit) {
					t.Fatalf("process %d lives although the gateway is gone", pid)
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
		w.begin("0")
		w.failed("box", "GatewayUnreachable", "")
		w.call("StartSandbox", &openshellv1.StartSandboxRequest{WorkspaceScope: scope(), Name: "box"}, &openshellv1.SandboxResponse{})
		w.phase("box", ready)
	})
}

func TestAnIdleGatewayEnds(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		w := newWorld(t, p, "--idle-exit", "300ms")
		w.create("box", &openshellv1.SandboxSpec{Command: []string{"sleep", "600"}})
		w.phase("box", ready)
		select {
		case err := <-w.ended:
			t.Fatalf("it ended although there is a sandbox: %v", err)
		case <-time.After(time.Second):
		}
		w.removeAll()
		select {
		case err := <-w.ended:
			if err != nil {
				t.Error(err)
			}
			w.cmd = nil
		case <-time.After(20 * time.Second):
			t.Error("it does not end")
		}
	})
}
