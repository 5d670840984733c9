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

// Words runs an argument vector as `bash -c` with those words quoted would,
// without the shell where the shell would only replace itself.
func (s *Shells) Words(ctx context.Context, cmd Command, argv []string, login bool) (Process, error) {
	if !login && plain(argv[0], cmd.Env) {
		direct := cmd
		direct.Argv = argv
		direct.Env = MergeEnv(cmd.Env, "PWD="+cmd.Dir, "SHLVL=0", "_="+argv[0])
		if p, err := s.Box.Spawn(ctx, direct); err == nil {
			return p, nil
		}
		// Not found, not executable, a script without its first line: the
		// shell knows what to say or to do.
	}
	return s.Run(ctx, cmd, Quote(argv), login)
}

// plain reports whether a shell would do nothing with the word but execute
// the program of that name.
func plain(word string, env []string) bool {
	for _, kv := range env {
		if strings.HasPrefix(kv, "BASH_ENV=") || strings.HasPrefix(kv, "BASH_FUNC_") || strings.HasPrefix(kv, "SHLVL=") || strings.HasPrefix(kv, "BASHOPTS=") ||
			strings.HasPrefix(kv, "SHELLOPTS=") {
			return false
		}
	}
	return !slices.Contains(builtins, word)
}

// builtins are the words that bash runs itself, even quoted. A keyword that is
// quoted is none any more.
var builtins = strings.Fields(`. : [ alias bg bind break builtin caller cd command compgen complete compopt continue declare dirs disown
	echo enable eval exec exit export false fc fg getopts hash help history jobs kill let local logout mapfile popd printf pushd pwd read
	readarray readonly return set shift shopt source suspend test times trap true type typeset ulimit umask unalias unset wait`)

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
