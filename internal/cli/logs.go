package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/client"
	"openshell.dev/openshell/internal/fault"
)

func (a *app) logsCommand() *cobra.Command {
	var lines uint32
	var tail bool
	var since, level string
	var sources []string
	c := &cobra.Command{Use: "logs [NAME]", Short: "Show the log of a sandbox", Aliases: []string{"lg"}, Args: between(0, 1, "a name"), ValidArgsFunction: a.completeSandboxes}
	f := c.Flags()
	f.Uint32VarP(&lines, "lines", "n", 200, "the last `N` lines")
	f.BoolVar(&tail, "tail", false, "go on as the log grows")
	f.BoolVarP(&tail, "follow", "f", false, "")
	f.StringVar(&since, "since", "", "only lines of the last `DURATION`, such as 30s, 5m or 1h")
	f.StringArrayVar(&sources, "source", nil, "only lines of this `SOURCE`: all, gateway or sandbox; repeatable")
	f.StringVar(&level, "level", "", "only lines of this `LEVEL` and above: debug, info, ocsf, warn or error")
	_ = f.MarkHidden("follow")
	out := outputFlag(c, table, jsonOut)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var begin *timestamppb.Timestamp
		if since != "" {
			d, err := time.ParseDuration(since)
			if err != nil || d <= 0 {
				return misuse("--since %q is not a duration", since).Hint("--since 30s, --since 5m or --since 1h")
			}
			begin = timestamppb.New(time.Now().Add(-d))
		}
		for _, s := range sources {
			if !slices.Contains([]string{"all", "gateway", "sandbox"}, s) {
				return misuse("--source %q is not known", s).Hint("--source all, gateway or sandbox")
			}
		}
		if slices.Contains(sources, "all") {
			sources = nil
		}
		ctx := cmd.Context()
		cl, name, err := a.pick(ctx, first(args))
		if err != nil {
			return err
		}
		defer cl.Close()
		level = strings.ToUpper(level)
		if tail {
			return a.tail(ctx, cl, &openshellv1.WatchSandboxRequest{WorkspaceScope: cl.Scope(), Sandbox: name, FollowLogs: true, LogTailLines: lines,
				SinceTime: begin, LogSources: sources, LogMinLevel: level}, out)
		}
		resp, err := cl.GetSandboxLogs(ctx, &openshellv1.GetSandboxLogsRequest{WorkspaceScope: cl.Scope(), Sandbox: name, Lines: lines, SinceTime: begin, Sources: sources, MinLevel: level})
		if err != nil {
			return err
		}
		if begin != nil && resp.GetBufferTotal() > uint32(len(resp.GetLogs())) && uint32(len(resp.GetLogs())) == lines {
			a.note("warning: only the last %d lines are shown; more with -n", lines)
		}
		for _, l := range resp.GetLogs() {
			if err := a.logLine(out, l); err != nil {
				return err
			}
		}
		return nil
	}
	return c
}

// tail follows a log until it is interrupted; a stream that breaks is taken
// up where it was.
func (a *app) tail(ctx context.Context, cl *client.Client, req *openshellv1.WatchSandboxRequest, out *formatFlag) error {
	for pause := 250 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := a.tailOnce(ctx, cl, req, out)
		switch {
		case ctx.Err() != nil:
			return nil // that is how it ends
		case err != nil && fault.KindOf(err) == fault.OutOfRange && req.ResumeAfterCursor != "":
			a.note("warning: some lines are gone")
			req.ResumeAfterCursor = ""
			continue
		case err != nil && !transient(err):
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		if _, err := cl.Sandbox(ctx, req.GetSandbox()); err != nil && fault.KindOf(err) == fault.NotFound {
			return gone(req.GetSandbox())
		}
	}
}

func (a *app) tailOnce(ctx context.Context, cl *client.Client, req *openshellv1.WatchSandboxRequest, out *formatFlag) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := cl.WatchSandbox(ctx, req)
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		m := stream.Msg()
		if c := m.GetCursor(); c > req.ResumeAfterCursor {
			req.ResumeAfterCursor = c
		}
		if w := m.GetWarning(); w != nil {
			a.note("warning: %s", clean(w.GetMessage()))
		}
		if l := m.GetLog(); l != nil {
			if err := a.logLine(out, l); err != nil {
				return err
			}
		}
	}
	return stream.Err()
}

type logView struct {
	Time    string            `json:"time"`
	Source  string            `json:"source"`
	Level   string            `json:"level"`
	Target  string            `json:"target"`
	Message string            `json:"message"`
	Fields  map[string]string `json:"fields"`
}

func (a *app) logLine(out *formatFlag, l *openshellv1.SandboxLogLine) error {
	if out.structured() {
		body, err := toJSONLine(logView{l.GetEventTime().AsTime().UTC().Format(time.RFC3339Nano), l.GetSource(), l.GetLevel(), l.GetTarget(), l.GetMessage(), orEmpty(l.GetFields())})
		if err != nil {
			return err
		}
		_, err = a.stdout.Write(body)
		return err
	}
	_, err := fmt.Fprintln(a.stdout, logText(l))
	return err
}

// logText is a line in the contract's form.
func logText(l *openshellv1.SandboxLogLine) string {
	ms := millis(l.GetEventTime())
	source := l.GetSource()
	if source == "" {
		source = "gateway"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[%d.%03d] [%-7s] [%-5s] [%s] %s", ms/1000, ms%1000, clean(source), clean(l.GetLevel()), clean(l.GetTarget()), clean(l.GetMessage()))
	for _, k := range slices.Sorted(maps.Keys(l.GetFields())) {
		v := clean(l.GetFields()[k])
		if strings.ContainsAny(v, " \"") {
			v = strconv.Quote(v)
		}
		fmt.Fprintf(&b, " %s=%s", clean(k), v)
	}
	return b.String()
}
