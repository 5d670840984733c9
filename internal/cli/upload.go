package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/client"
	"openshell.dev/openshell/internal/fault"
)

func (a *app) uploadCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{Use: "upload NAME LOCAL [DEST]", Short: "Copy files into a sandbox", Args: between(2, 3, "a name or a local path")}
	c.Flags().BoolVar(&all, "no-git-ignore", false, "upload files that git ignores, too")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := os.Lstat(args[1]); err != nil {
			return misuse("local path does not exist: %s", args[1])
		}
		cl, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		defer cl.Close()
		return a.upload(cmd.Context(), cl, args[0], args[1], first(args[2:]), !all)
	}
	return c
}

// upload copies local files into a sandbox: an archive made here is read by
// tar inside.
func (a *app) upload(ctx context.Context, cl *client.Client, sandbox, local, dest string, filter bool) error {
	files, base, err := a.uploadFiles(local, filter)
	if err != nil {
		return err
	}
	into, rename := ".", ""
	if dest != "" {
		into = dest
	}
	if st, err := os.Lstat(local); err == nil && !st.IsDir() && dest != "" && !strings.HasSuffix(dest, "/") && path.Dir(dest) != "/" {
		into, rename = path.Dir(dest), path.Base(dest)
	}
	fmt.Fprintf(a.stderr, "Uploading %s -> sandbox:%s\n", local, orDot(dest))
	r, w, err := os.Pipe()
	if err != nil {
		return fault.New(fault.Exhausted, "prepare the upload").Cause(err)
	}
	defer r.Close()
	packed := make(chan error, 1)
	go func() {
		err := pack(w, local, base, rename, files)
		packed <- errors.Join(err, w.Close())
	}()
	req := &openshellv1.ExecSandboxRequest{WorkspaceScope: cl.Scope(), Sandbox: sandbox, NoLoginShell: true,
		Command: []string{"sh", "-c", `mkdir -p -- "$1" && exec tar -xf - -C "$1"`, "sh", into}}
	code, err := a.execOn(ctx, cl, req, r)
	_ = r.Close() // a packer that still writes ends now
	perr := <-packed
	switch {
	case perr != nil && !errors.Is(perr, syscall.EPIPE) && !errors.Is(perr, os.ErrClosed):
		return &failed{fault.New(fault.FailedPrecondition, "the upload of %q is not complete", local).Cause(perr)}
	case err != nil:
		return err
	case code != 0:
		return fault.New(fault.FailedPrecondition, "the upload of %q failed inside with code %d", local, code).Hint("tar and sh must exist in the sandbox")
	case perr != nil:
		return fault.New(fault.Unavailable, "the upload of %q was cut off", local)
	}
	a.done(a.stderr, "Upload complete (%d files)", len(files))
	return nil
}

func orDot(s string) string {
	if s == "" {
		return "."
	}
	return s
}

// uploadFiles lists what is to be sent, relative to base, and the name below
// which it appears.
func (a *app) uploadFiles(local string, filter bool) (files []string, base string, err error) {
	st, err := os.Lstat(local)
	if err != nil {
		return nil, "", misuse("local path does not exist: %s", local)
	}
	if !st.IsDir() {
		return []string{"."}, filepath.Base(local), nil
	}
	base = filepath.Base(filepath.Clean(local))
	if base == "." || base == ".." || base == "/" {
		base = "" // flat
	}
	if filter && inWorkTree(local) {
		files, err := gitFiles(local)
		if err != nil {
			return nil, "", err
		}
		if len(files) == 0 {
			return nil, "", fault.New(fault.FailedPrecondition, "git ignores everything in %q", local).Hint("--no-git-ignore uploads it all the same")
		}
		return files, base, nil
	}
	if filter {
		a.note("warning: %s is not in a git work tree: everything in it is uploaded", local)
	}
	err = filepath.WalkDir(local, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fault.New(fault.PermissionDenied, "cannot read %q", p).Cause(errno(err))
		}
		rel, err := filepath.Rel(local, p)
		if err != nil {
			return err
		}
		files = append(files, rel)
		return nil
	})
	return files, base, err
}

func inWorkTree(dir string) bool {
	abs, err := filepath.Abs(dir)
	for ; err == nil; abs = filepath.Dir(abs) {
		if _, err := os.Lstat(filepath.Join(abs, ".git")); err == nil {
			return true
		}
		if abs == filepath.Dir(abs) {
			return false
		}
	}
	return false
}

// gitFiles asks git, whose rules these are, without the caller's GIT_*.
func gitFiles(dir string) ([]string, error) {
	cmd := exec.Command("git", "ls-files", "-co", "--exclude-standard", "-z", "--", ".")
	cmd.Dir = dir
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "GIT_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return nil, fault.New(fault.FailedPrecondition, "git cannot list the files of %q: %s", dir, clean(strings.TrimSpace(complaint.String()))).
			Hint("--no-git-ignore uploads everything").Cause(err)
	}
	var files []string
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil { // deleted ones are still listed
			files = append(files, name)
		}
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

// pack writes the archive. Links stay links; sockets and devices are errors.
func pack(w io.Writer, local, base, rename string, files []string) error {
	t := tar.NewWriter(w)
	for _, rel := range files {
		name := path.Join(base, filepath.ToSlash(rel))
		if rename != "" {
			name = rename
		}
		if name == "." {
			continue
		}
		if err := packOne(t, filepath.Join(local, rel), name); err != nil {
			return err
		}
	}
	return t.Close()
}

func packOne(t *tar.Writer, from, name string) error {
	st, err := os.Lstat(from)
	if err != nil {
		return err
	}
	link := ""
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		if link, err = os.Readlink(from); err != nil {
			return err
		}
	case !st.IsDir() && !st.Mode().IsRegular():
		return fmt.Errorf("%q is neither a file, a directory nor a link", from)
	}
	h, err := tar.FileInfoHeader(st, link)
	if err != nil {
		return err
	}
	h.ModTime = st.ModTime().Truncate(time.Second) // rounded up it would be in the future
	h.Name, h.Uid, h.Gid, h.Uname, h.Gname = name, 0, 0, "", ""
	if st.IsDir() {
		h.Name += "/"
	}
	if err := t.WriteHeader(h); err != nil || !st.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(t, f, st.Size()); err != nil {
		return fmt.Errorf("%s changed while it was read by %s: %w", from, brand.CLI, err)
	}
	return nil
}
