package uplink

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/relay"
)

// attachWait is how long the end of an awaited main process waits for its
// first attachment to come.
const attachWait = time.Minute

// drainWait is how long output after the end is waited for: a child in the
// background may hold the streams.
const drainWait = 30 * time.Second

// wasAttached notes that an attachment to the main process has ended.
func (u *Uplink) wasAttached() { u.once.Do(func() { close(u.attached) }) }

// beforeExit is called when an attachment has delivered all output and is
// about to tell the exit: the gateway is told first, so that whoever saw the
// exit also sees the phase it led to. A gateway that is away delays nobody
// for long.
func (u *Uplink) beforeExit() {
	select {
	case <-u.o.Box.Main().Done():
	default:
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = u.tellExit(ctx)
}

// Reported is closed when the gateway has stored the end of the main process.
func (u *Uplink) Reported() <-chan struct{} { return u.reported }

// reportExit tells the gateway how the main process ended, until it knows.
func (u *Uplink) reportExit(ctx context.Context) {
	main := u.o.Box.Main()
	// A sandbox is ready before it is over, however short its command.
	for _, event := range []<-chan struct{}{main.Done(), u.connected} {
		select {
		case <-event:
		case <-ctx.Done():
			return
		}
	}
	if u.o.AwaitAttachment {
		timer := time.NewTimer(attachWait)
		select {
		case <-u.attached:
		case <-u.reported:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	} else {
		// The output is read before the end is told, so that nobody who
		// follows misses the last line.
		timer := time.NewTimer(drainWait)
		select {
		case <-main.Drained():
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	u.insist(ctx, "main process exit not reported", u.tellExit)
	if u.o.AwaitAttachment {
		timer := time.NewTimer(attachWait)
		defer timer.Stop()
		select {
		case <-u.attached:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	u.insist(ctx, "main process exit not finalized", func(ctx context.Context) error {
		_, err := u.client.FinalizeMainProcessExit(ctx, &openshellv1.FinalizeMainProcessExitRequest{SandboxId: u.o.SandboxID, InstanceId: u.o.InstanceID})
		return err
	})
}

func (u *Uplink) tellExit(ctx context.Context) error {
	select {
	case <-u.reported:
		return nil
	default:
	}
	e := u.o.Box.Main().Exit()
	ctx, info := connect.NewClientContext(ctx)
	if e.Reason != "" {
		info.RequestHeader().Set(relay.HeaderExitDetail, e.Reason)
	}
	_, err := u.client.ReportMainProcessExit(ctx, &openshellv1.ReportMainProcessExitRequest{SandboxId: u.o.SandboxID, InstanceId: u.o.InstanceID, ExitCode: int32(e.Code)})
	if err == nil {
		u.exitOnce.Do(func() { close(u.reported) })
	}
	return err
}

// insist repeats a report until it arrives or makes no sense any more.
func (u *Uplink) insist(ctx context.Context, what string, f func(context.Context) error) {
	delay := firstDelay
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, 15*time.Second)
		err := f(try)
		cancel()
		switch connect.CodeOf(err) {
		case connect.CodeNotFound, connect.CodePermissionDenied, connect.CodeUnauthenticated, connect.CodeInvalidArgument:
			if err != nil {
				u.o.Log.Warn(what, "err", err)
				return
			}
		}
		if err == nil {
			return
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
		delay = min(delay*2, lastDelay)
	}
}

// renewToken asks for a new token at about 80 % of the old one's life. One
// that never expires is asked about once.
func (u *Uplink) renewToken(ctx context.Context) {
	wait := time.Minute
	for {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		try, cancel := context.WithTimeout(ctx, 15*time.Second)
		res, err := u.client.RefreshSandboxToken(try, &openshellv1.RefreshSandboxTokenRequest{})
		cancel()
		if err != nil {
			wait = time.Minute
			continue
		}
		if res.GetExpirationTime() == nil {
			return
		}
		u.link.set(res.GetToken())
		if err := replaceFile(u.o.TokenFile, res.GetToken()); err != nil {
			u.o.Log.Warn("renewed token not kept", "err", err)
		}
		wait = max(10*time.Second, time.Until(res.GetExpirationTime().AsTime())*8/10)
	}
}

func replaceFile(path, body string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".token-")
	if err != nil {
		return err
	}
	_, err = f.WriteString(body)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
