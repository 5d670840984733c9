package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/client"
	"openshell.dev/openshell/internal/fault"
)

// infoView is GetGatewayInfo as programs read it.
type infoView struct {
	Gateway    string          `json:"gateway"`
	Server     string          `json:"server"`
	Auth       *string         `json:"auth"`
	Status     string          `json:"status"`
	Version    string          `json:"version"`
	Drivers    []driverView    `json:"compute_drivers"`
	Extensions []extensionView `json:"extensions"`
}

type driverView struct {
	Name         string            `json:"name"`
	Capabilities map[string]string `json:"capabilities"`
}

type extensionView struct {
	Kind      string   `json:"kind"`
	Name      string   `json:"configured_name"`
	Impl      string   `json:"implementation_name"`
	Version   string   `json:"implementation_version"`
	Protocol  string   `json:"protocol_version"`
	Supported []string `json:"supported_capabilities"`
	Required  []string `json:"required_capabilities"`
}

func (a *app) gatewayInfoCommand() *cobra.Command {
	c := &cobra.Command{Use: "info", Short: "Show what the gateway says of itself", Args: between(0, 0, "")}
	out := outputFlag(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		o, err := a.options(true)
		if err != nil {
			return err
		}
		if _, err := client.Find(o); client.NoGateway(err) {
			return fault.New(fault.FailedPrecondition, "No gateway configured.").Hint("%s gateway add ENDPOINT", brand.CLI)
		}
		cl, err := client.Connect(cmd.Context(), o)
		if err != nil {
			return err
		}
		defer cl.Close()
		info, err := cl.GetGatewayInfo(cmd.Context(), &openshellv1.GetGatewayInfoRequest{})
		switch {
		case fault.KindOf(err) == fault.PermissionDenied && err != nil:
			return &failed{fault.New(fault.PermissionDenied, "gateway info requires admin privileges: %s", err).Hint("%s status needs none", brand.CLI)}
		case fault.KindOf(err) == fault.Unsupported && err != nil:
			return &failed{fault.New(fault.Unsupported, "gateway info is not supported by this gateway version")}
		case err != nil:
			return err
		}
		v := infoView{Gateway: cl.Target.Name, Server: cl.Target.Endpoint, Status: serviceWord(info.GetStatus()), Version: info.GetGatewayVersion(), Drivers: []driverView{}, Extensions: []extensionView{}}
		if cl.Target.AuthMode == "oidc" {
			bearer := "bearer"
			v.Auth = &bearer
		}
		for _, d := range info.GetComputeDrivers() {
			v.Drivers = append(v.Drivers, driverView{d.GetName(), map[string]string{"driver_name": d.GetCapabilities().GetDriverName(), "driver_version": d.GetCapabilities().GetDriverVersion()}})
		}
		for _, e := range info.GetExtensions() {
			kind := strings.ReplaceAll(enumWord(e.GetKind().String(), "EXTENSION_KIND_", strings.ToLower), "_", "-")
			v.Extensions = append(v.Extensions, extensionView{kind, e.GetConfiguredName(), e.GetImplementationName(), e.GetImplementationVersion(),
				fmt.Sprintf("%d.%d", e.GetProtocolMajor(), e.GetProtocolMinor()), e.GetSupportedCapabilities(), e.GetRequiredCapabilities()})
		}
		if out.structured() {
			return out.print(a.stdout, v)
		}
		w := a.stdout
		fmt.Fprintf(w, "%s\n  Gateway: %s\n  Server: %s\n", a.colour(w, "1", "Gateway Info"), v.Gateway, v.Server)
		if v.Auth != nil {
			fmt.Fprintf(w, "  Auth: %s\n", *v.Auth)
		}
		fmt.Fprintf(w, "  Status: %s\n  Version: %s\n  Compute drivers:\n", v.Status, clean(v.Version))
		for _, d := range v.Drivers {
			fmt.Fprintf(w, "    %s %s\n", clean(d.Name), clean(d.Capabilities["driver_version"]))
		}
		return nil
	}
	return c
}

func serviceWord(s openshellv1.ServiceStatus) string {
	w := enumWord(s.String(), "SERVICE_STATUS_", strings.ToLower)
	if w == "unspecified" {
		return "unknown"
	}
	return w
}
