package image

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// keychain finds registry credentials where docker and podman put them.
//
// Podman's files come first, as podman does it, and are read here, without
// helpers. Then the library's keychain: it reads $DOCKER_CONFIG or
// ~/.docker/config.json and runs credential helpers. (It looks at podman's
// files only where docker has none, and then takes an entry of another
// repository on the same server for ours.)
//
// A keychain that fails does not fail the pull: most images need no
// credential. The failure is kept and told if the registry then wants one.
type keychain struct {
	inner authn.Keychain // the caller's, or the library's
	files []string       // podman's, most specific first

	mu  sync.Mutex
	err error // why a credential could not be read
}

func defaultKeychain() *keychain {
	return &keychain{inner: authn.DefaultKeychain, files: podmanFiles(os.Getenv)}
}

// podmanFiles lists the files of containers-auth.json(5).
func podmanFiles(env func(string) string) []string {
	var files []string
	if f := env("REGISTRY_AUTH_FILE"); f != "" {
		files = append(files, f)
	}
	if d := env("XDG_RUNTIME_DIR"); filepath.IsAbs(d) {
		files = append(files, filepath.Join(d, "containers/auth.json"))
	}
	home := env("HOME")
	config := env("XDG_CONFIG_HOME")
	if config == "" && home != "" {
		config = filepath.Join(home, ".config")
	}
	if filepath.IsAbs(config) {
		files = append(files, filepath.Join(config, "containers/auth.json"))
	}
	return files
}

// Resolve implements authn.Keychain.
func (k *keychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	for _, file := range k.files {
		auth, err := fileCredential(file, target)
		k.note(err)
		if auth != nil {
			return auth, nil
		}
	}
	if k.inner != nil {
		auth, err := k.inner.Resolve(target)
		if err == nil && auth != authn.Anonymous {
			return auth, nil
		}
		k.note(err)
	}
	return authn.Anonymous, nil
}

func (k *keychain) note(err error) {
	if err == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		k.err = err
	}
}

func (k *keychain) trouble() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// fileCredential looks a repository up in one file: the repository, then each
// shorter path, then the registry. A missing file is no error.
func fileCredential(file string, target authn.Resource) (authn.Authenticator, error) {
	info, err := os.Stat(file)
	if err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var doc struct {
		Auths map[string]struct {
			Auth          string `json:"auth"`
			IdentityToken string `json:"identitytoken"`
		} `json:"auths"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for key := target.String(); ; {
		for _, form := range spellings(key) {
			entry, ok := doc.Auths[form]
			if !ok || entry.Auth == "" && entry.IdentityToken == "" {
				continue
			}
			cfg := authn.AuthConfig{IdentityToken: entry.IdentityToken}
			if entry.Auth != "" {
				raw, err := base64.StdEncoding.DecodeString(entry.Auth)
				user, pass, colon := strings.Cut(strings.TrimRight(string(raw), "\x00"), ":")
				if err != nil || !colon {
					return nil, fmt.Errorf("%s: the entry of %s is not base64 of user:password", file, form)
				}
				cfg.Username, cfg.Password = user, pass
			}
			return authn.FromConfig(cfg), nil
		}
		i := strings.LastIndexByte(key, '/')
		if i < 0 {
			return nil, nil
		}
		key = key[:i]
	}
}

// spellings are the keys under which the tools store one registry.
func spellings(key string) []string {
	out := []string{key, "https://" + key, "https://" + key + "/v1/", "https://" + key + "/v2/"}
	if rest, ok := strings.CutPrefix(key, name.DefaultRegistry); ok {
		out = append(out, "docker.io"+rest)
	}
	return out
}
