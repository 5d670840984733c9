package model

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

var t0 = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

func fresh(policy RestartPolicy) *Lifecycle {
	l := &Lifecycle{}
	l.Create(t0, "run1", policy, t0.Add(time.Minute))
	return l
}

func (l *Lifecycle) is(t *testing.T, phase Phase, reason string) {
	t.Helper()
	if l.Phase != phase || l.Reason != reason {
		t.Errorf("%s/%s, want %s/%s", l.Phase, l.Reason, phase, reason)
	}
}

func TestALife(t *testing.T) {
	l := fresh(0)
	l.is(t, PhaseProvisioning, ReasonStarting)
	l.Running(t0, "run1")
	l.is(t, PhaseProvisioning, ReasonSupervisorMissing)
	if !l.Connected(t0, "run1") || l.Connected(t0, "another") {
		t.Error("only the session of this run is taken")
	}
	l.is(t, PhaseReady, ReasonReady)
	l.Disconnected(t0, "run1")
	l.is(t, PhaseProvisioning, ReasonSupervisorMissing)
	l.Connected(t0, "run1")
	if stopping, err := l.Stop(t0); !stopping || err != nil {
		t.Error(stopping, err)
	}
	l.is(t, PhaseStopping, ReasonStopping)
	if !l.Exited(t0, "run1", 143, "") {
		t.Error("the exit during a stop was not recorded")
	}
	l.is(t, PhaseStopping, ReasonStopping)
	l.Stopped(t0)
	l.is(t, PhaseStopped, ReasonStopped)
	if begun, err := l.Start(t0, "run2", t0); !begun || err != nil {
		t.Error(begun, err)
	}
	l.is(t, PhaseStarting, ReasonStarting)
	if *l.ExitCode != 143 {
		t.Error("the exit code is kept until the replacement is ready")
	}
	l.Connected(t0, "run2")
	l.is(t, PhaseReady, ReasonReady)
	if l.ExitCode != nil {
		t.Error("the exit code is cleared when the replacement is ready")
	}
	if l.Exited(t0, "run1", 1, "") {
		t.Error("the report of an old run was taken")
	}
}

func TestTheEndOfTheMainProcess(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy RestartPolicy
		code   int32
		phase  Phase
		reason string
	}{
		{"success", RestartNever, 0, PhaseCompleted, ReasonCompleted},
		{"failure", RestartNever, 7, PhaseError, ReasonFailed},
		{"success, restart on failure", RestartOnFailure, 0, PhaseCompleted, ReasonCompleted},
		{"failure, restart on failure", RestartOnFailure, 7, PhaseStarting, ReasonRestarting},
		{"success, restart always", RestartAlways, 0, PhaseStarting, ReasonRestarting},
	} {
		l := fresh(tt.policy)
		l.Connected(t0, "run1")
		if !l.Exited(t0, "run1", tt.code, "") || l.Exited(t0, "run1", tt.code, "") {
			t.Errorf("%s: an exit is news exactly once", tt.name)
		}
		l.is(t, tt.phase, tt.reason)
		if l.ExitCode == nil || *l.ExitCode != tt.code {
			t.Errorf("%s: exit code %v", tt.name, l.ExitCode)
		}
		if tt.policy == RestartNever && !l.Connected(t0, "run1") {
			t.Errorf("%s: the session after the end was refused", tt.name)
		}
	}
}

func TestTheBackOff(t *testing.T) {
	l, now := fresh(RestartAlways), t0
	want := []time.Duration{0, 1, 2, 4, 8, 16, 32, 64, 128, 180, 180}
	run := "run1"
	for n, w := range want {
		l.Connected(now, run)
		l.Exited(now, run, 1, "")
		if got := l.NextRestart.Sub(now); got != w*time.Second {
			t.Errorf("restart %d after %v, want %v", n, got, w*time.Second)
		}
		now = l.NextRestart
		run += "x"
		if !l.Restart(now, run, now) {
			t.Fatal("no restart")
		}
	}
	if l.RestartCount != uint32(len(want)) {
		t.Errorf("restart count %d", l.RestartCount)
	}
	l.Connected(now, run)
	now = now.Add(10 * time.Second)
	l.Exited(now, run, 1, "")
	if !l.NextRestart.Equal(now) {
		t.Error("ten seconds of running must reset the back-off")
	}
	if _, err := l.Stop(now); err != nil || !l.NextRestart.IsZero() {
		t.Error("a stop must cancel the restart", err)
	}
}

func TestAKilledSupervisorIsReported(t *testing.T) {
	l := fresh(0)
	l.Connected(t0, "run1")
	l.Disconnected(t0, "run1")
	l.Gone(t0, "run1", ReasonProcessExited, "killed")
	l.is(t, PhaseError, ReasonProcessExited)
	if l.Connected(t0, "run1") {
		t.Error("a session of a dead run was taken")
	}
	l = fresh(0)
	l.Connected(t0, "run1")
	l.Exited(t0, "run1", 0, "")
	l.Gone(t0, "run1", ReasonProcessExited, "killed")
	l.is(t, PhaseCompleted, ReasonCompleted)
}

func TestAStartThatTakesTooLong(t *testing.T) {
	l := fresh(0)
	if l.Expired(t0) {
		t.Error("expired before the deadline")
	}
	l.Progress(t0, "run1", ReasonPreparingImage, "layer 1")
	if !l.Expired(t0.Add(time.Hour)) {
		t.Error("not expired")
	}
	l.is(t, PhaseError, ReasonImagePrepTimedOut)
}

// TestLaws runs random histories: a sandbox being deleted does nothing else,
// an exit is recorded once per run, ready means no exit code and no deadline.
func TestLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, now, runs, exits := &Lifecycle{}, t0, 1, map[string]int{}
		l.Create(now, "1", RestartPolicy(rapid.IntRange(0, 3).Draw(t, "policy")), now.Add(time.Minute))
		t.Repeat(map[string]func(*rapid.T){
			"wait":       func(t *rapid.T) { now = now.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "s")) * time.Second) },
			"connect":    func(*rapid.T) { l.Connected(now, l.InstanceID) },
			"disconnect": func(*rapid.T) { l.Disconnected(now, l.InstanceID) },
			"exit": func(t *rapid.T) {
				if l.Exited(now, l.InstanceID, int32(rapid.IntRange(0, 2).Draw(t, "code")), "") {
					exits[l.InstanceID]++
				}
			},
			"gone":    func(*rapid.T) { l.Gone(now, l.InstanceID, ReasonProcessExited, "") },
			"stop":    func(*rapid.T) { _, _ = l.Stop(now) },
			"stopped": func(*rapid.T) { l.Stopped(now) },
			"expire":  func(*rapid.T) { l.Expired(now) },
			"recover": func(*rapid.T) { l.Recover(now, now.Add(time.Minute)) },
			"delete": func(t *rapid.T) {
				if rapid.IntRange(0, 20).Draw(t, "rarely") == 0 {
					l.Delete(now)
				}
			},
			"start": func(*rapid.T) {
				runs++
				_, _ = l.Start(now, string(rune('0'+runs)), now.Add(time.Minute))
			},
			"restart": func(*rapid.T) {
				runs++
				if !l.NextRestart.IsZero() && !now.Before(l.NextRestart) {
					l.Restart(now, string(rune('0'+runs)), now.Add(time.Minute))
				}
			},
			"": func(t *rapid.T) {
				if l.Phase == PhaseReady && (l.ExitCode != nil || !l.Deadline.IsZero() || !l.NextRestart.IsZero()) {
					t.Fatalf("ready with leftovers: %+v", l)
				}
				if !l.NextRestart.IsZero() && l.Phase != PhaseStarting {
					t.Fatalf("a restart is due in phase %s", l.Phase)
				}
				if exits[l.InstanceID] > 1 {
					t.Fatalf("run %s ended %d times", l.InstanceID, exits[l.InstanceID])
				}
				if l.Phase == PhaseDeleting {
					if ok, err := l.Start(now, "z", now); ok || err == nil {
						t.Fatal("a sandbox being deleted was started")
					}
				}
			},
		})
	})
}
