package session

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
)

// Shells starts commands the way the 0.1.x contract says: through bash if the
// sandbox has it, else through sh. It remembers which one there is.
type Shells struct {
	Box  Box
	noSh atomic.Bool // there is no bash
}

// Login is the argument vector of a login shell.
func (s *Shells) Login() []string { return []string{s.name(), "-l"} }

func (s *Shells) name() string {
	if s.noSh.Load() {
		return "sh"
	}
	return "bash"
}

// Run starts words through a shell; login decides between -lc and -c. cmd
// says everything but the argument vector.
func (s *Shells) Run(ctx context.Context, cmd Command, words string, login bool) (Process, error) {
	flag := "-c"
	if login {
		flag = "-lc"
	}
	return s.start(ctx, cmd, flag, words)
}

// Interactive starts a login shell.
func (s *Shells) Interactive(ctx context.Context, cmd Command) (Process, error) {
	return s.start(ctx, cmd, "-l")
}

func (s *Shells) start(ctx context.Context, cmd Command, args ...string) (Process, error) {
	cmd.Argv = append([]string{s.name()}, args...)
	p, err := s.Box.Spawn(ctx, cmd)
	var coded interface{ ExitCode() int }
	if err != nil && cmd.Argv[0] == "bash" && errors.As(err, &coded) && coded.ExitCode() == 127 {
		s.noSh.Store(true)
		cmd.Argv[0] = "sh"
		p, err = s.Box.Spawn(ctx, cmd)
	}
	return p, err
}

// Quote joins an argument vector to one line that a POSIX shell reads back as
// the same words.
func Quote(argv []string) string {
	words := make([]string, len(argv))
	for i, a := range argv {
		words[i] = quoteWord(a)
	}
	return strings.Join(words, " ")
}

func quoteWord(w string) string {
	plain := w != "" && !strings.ContainsFunc(w, func(r rune) bool {
		ok := (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') || (r >= '0' && r <= '9') || strings.ContainsRune("@%+:,./_-", r)
		return !ok
	})
	if plain {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}

// MergeEnv puts entries over an environment; of one name the last stays.
func MergeEnv(base []string, over ...string) []string {
	out := slices.Clone(base)
	for _, kv := range over {
		name, _, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			continue
		}
		at := slices.IndexFunc(out, func(have string) bool { return strings.HasPrefix(have, name+"=") })
		if at < 0 {
			out = append(out, kv)
		} else {
			out[at] = kv
		}
	}
	return out
}

// WithTerm makes sure that a process with a terminal has a usable TERM.
func WithTerm(env []string, term string) []string {
	if term == "" {
		term = "xterm-256color"
		for _, kv := range env {
			if v, ok := strings.CutPrefix(kv, "TERM="); ok && v != "" && v != "dumb" {
				term = v
			}
		}
	}
	return MergeEnv(env, "TERM="+term)
}
