package netns

import (
	"net"
	"os"
	"slices"
	"syscall"
	"testing"

	"openshell.dev/openshell/internal/kerneltest"
)

// inside runs body as pid 1 of fresh namespaces, as an ordinary account.
func inside(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	kerneltest.Require(t, kerneltest.NetAdmin)
	kerneltest.Child{
		Ordinary: true, Ambient: true,
		Clone: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
	}.Run(t, body)
}

// floor does everything the launcher does and closes the sockets with the test.
func floor(t *testing.T) (Sockets, Report) {
	t.Helper()
	rep, err := Setup()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Listen(rep)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.LoadFence(); err != nil {
		t.Fatal(err)
	}
	return s, rep
}

func TestProgramsSeeLoAndOneInterface(t *testing.T) {
	inside(t, func(t *testing.T) {
		rep, err := Setup()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", rep)
		ifs, err := net.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range ifs {
			addrs, _ := i.Addrs()
			state, _ := os.ReadFile("/sys/class/net/" + i.Name + "/operstate")
			t.Logf("%+v %v %s", i, addrs, state)
		}
		if len(ifs) != 2 || ifs[0].Name != "lo" || ifs[1].Name != Interface {
			t.Fatalf("interfaces = %v", ifs)
		}
		const up = net.FlagUp | net.FlagRunning
		if got := ifs[0].Flags; got&up != up || got&net.FlagLoopback == 0 {
			t.Errorf("lo is %v", got)
		}
		if got := ifs[1].Flags; got&up != up || got&net.FlagMulticast == 0 || got&net.FlagBroadcast == 0 || got&net.FlagLoopback != 0 {
			t.Errorf("%s is %v", Interface, got)
		}
		for i, want := range [][]string{{"127.0.0.1/8", "::1/128"}, {Address + "/24", Address6 + "/64"}} {
			addrs, err := ifs[i].Addrs()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range addrs {
				got = append(got, a.String())
			}
			if !slices.Equal(got, want) {
				t.Errorf("addresses of %s = %v, want %v", ifs[i].Name, got, want)
			}
		}
	})
}
