package cli

import (
	"context"
	"os"
	"path/filepath"

	"openshell.dev/openshell/internal/image"
	"openshell.dev/openshell/internal/supervisor"
)

// imageSource gives `run --from` its files from an image. The light program
// that serves every other run does not link what speaks to registries and
// hands such a run to us.
func (a *app) imageSource(ctx context.Context, from string, spec *supervisor.Spec) error {
	home, _ := os.UserHomeDir() // unknown: ~/ is not expanded
	src, err := image.Resolve(from, image.ResolveOptions{Local: true, Home: home, CommunityRegistry: envOr("COMMUNITY_REGISTRY", "")})
	if err != nil {
		return err
	}
	if src.Note != "" {
		a.note("note: %s", src.Note)
	}
	cache, err := image.Open(envOr("IMAGE_CACHE_DIR", ""), image.CacheOptions{})
	if err != nil {
		return err
	}
	p := a.progress(true)
	img, err := cache.Pull(ctx, src, image.PullOptions{Progress: func(s image.Progress) {
		if p.live {
			p.show(clean(s.String()))
		}
	}})
	p.end()
	if err != nil {
		return err
	}
	a.image = img // the lease lasts as long as this process
	for _, n := range img.Notes {
		if n != src.Note { // said before the download
			a.note("note: %s", clean(n))
		}
	}
	if img.Host() {
		return nil
	}
	spec.Files.Root = img.RootfsDir
	// What the command changes of the image lasts as long as the run.
	if spec.Files.Upper, spec.Files.Work, err = image.Layer(filepath.Join(spec.StateDir, spec.ID), 0o755); err != nil {
		return err
	}
	if spec.Files.WorkspaceAt, err = image.Workspace(img.Config); err != nil {
		return err
	}
	spec.Main.Dir = spec.Files.WorkspaceAt
	spec.Main.User = img.Config.User
	spec.Main.Argv = image.Command(img.Config, spec.Main.Argv)
	var dropped []string
	spec.Main.Env, dropped = image.Environ(img.Config, spec.Main.Env)
	for _, name := range dropped {
		a.note("note: the image's variable %s is left out", clean(name))
	}
	if user, err := image.ResolveUser(img.RootfsDir, img.Config.User); err == nil {
		spec.Files.HomeAt = user.Home
	}
	if body, err := img.ReadPolicy(); err != nil {
		return err
	} else if body != nil && spec.Policy == nil && len(spec.Allow) == 0 {
		spec.Policy, spec.PolicyName = body, from+":"+image.PolicyPath
	}
	return nil
}
