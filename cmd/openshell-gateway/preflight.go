package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/config"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/gateways"
	"openshell.dev/openshell/internal/pki"
)

func configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Work with the configuration"}
	var path string
	pre := &cobra.Command{
		Use: "preflight [--path FILE] [-- ARGS...]", Short: "Check the configuration without changing or starting anything",
		RunE: func(cmd *cobra.Command, args []string) error {
			// Everything after -- is read exactly as the gateway would.
			f := &flags{given: map[string]*[]string{}}
			daemon := &cobra.Command{Use: brand.Gateway, SilenceUsage: true, SilenceErrors: true, Args: noArgs}
			f.register(daemon)
			if err := daemon.ParseFlags(args); err != nil {
				return misuse(err)
			}
			if rest := daemon.Flags().Args(); len(rest) > 0 {
				return misuse(fmt.Errorf("unexpected argument %q", rest[0]))
			}
			src := f.source(daemon)
			if path != "" {
				src.Path, src.Explicit = path, true
			}
			s, err := config.Load(src)
			if err != nil {
				return err
			}
			return report(cmd.OutOrStdout(), s)
		},
	}
	pre.Flags().StringVar(&path, "path", "", "configuration file to check")
	c.AddCommand(pre)
	return c
}

func report(w io.Writer, s config.Settings) error {
	file := s.File
	if file == "" {
		file = "none, built-in defaults"
	}
	_, err := fmt.Fprintf(w, "configuration: %s\naddress: %s\ntls: %v\nmtls user authentication: %v\nunauthenticated users: %v\ncompute driver: %s\nok\n",
		file, s.Bind, !s.DisableTLS, s.MTLS(), s.AnybodyIsUser, s.Driver)
	return err
}

func certsCommand() *cobra.Command {
	var dir, client string
	var sans []string
	var jwtOnly, dry bool
	c := &cobra.Command{
		Use: "generate-certs", Short: "Make the certificates and token keys of a local gateway", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dry {
				files, err := pki.Preview(sans)
				if err != nil {
					return err
				}
				for _, name := range []string{pki.CACert, pki.ServerCert, pki.ServerKey, pki.ClientCert, pki.ClientKey} {
					if _, err := fmt.Fprintf(cmd.OutOrStdout(), "# %s\n%s", name, files[name]); err != nil {
						return err
					}
				}
				return nil
			}
			if dir == "" {
				s, err := config.Load(config.Source{Env: os.Getenv})
				if err != nil {
					return err
				}
				dir = s.LocalTLSDir
			}
			wrote, err := pki.Ensure(dir, pki.Want{SANs: sans, JWTOnly: jwtOnly})
			if err != nil {
				return err
			}
			word := "unchanged"
			if wrote {
				word = "written"
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", dir, word); err != nil || jwtOnly {
				return err
			}
			reg, err := gateways.Default()
			if err != nil {
				return err
			}
			if err := gateways.CheckName(client); err != nil {
				return err
			}
			if err := pki.CopyClient(dir, reg.MTLSDir(client)); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: client certificate installed\n", reg.MTLSDir(client))
			return err
		},
	}
	c.Flags().StringVar(&dir, "output-dir", "", "directory of the bundle (default: the account's state directory)")
	c.Flags().StringVar(&client, "client-name", brand.Name, "name under which clients have the gateway registered")
	c.Flags().StringArrayVar(&sans, "server-san", nil, "further name of the server certificate")
	c.Flags().BoolVar(&jwtOnly, "jwt-only", false, "only the token keys")
	c.Flags().BoolVar(&dry, "dry-run", false, "print what would be made")
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return fault.New(fault.InvalidArgument, "%v", err).Hint("%s generate-certs --help", brand.Gateway)
	})
	return c
}
