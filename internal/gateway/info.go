package gateway

import (
	"context"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/brand"
)

// Health implements the API's own health call.
func (g *Gateway) Health(context.Context, *openshellv1.HealthRequest) (*openshellv1.HealthResponse, error) {
	return &openshellv1.HealthResponse{Status: openshellv1.ServiceStatus_SERVICE_STATUS_HEALTHY, Version: brand.Version}, nil
}

// GetCurrentUser tells a user who it is taken for.
func (g *Gateway) GetCurrentUser(ctx context.Context, _ *openshellv1.GetCurrentUserRequest) (*openshellv1.GetCurrentUserResponse, error) {
	p := principal(ctx)
	return &openshellv1.GetCurrentUserResponse{Subject: p.Subject, DisplayName: p.Display, Roles: p.Roles, Scopes: p.Scopes, IdentityProvider: p.Provider}, nil
}

// GetGatewayInfo describes the gateway and its driver.
func (g *Gateway) GetGatewayInfo(context.Context, *openshellv1.GetGatewayInfoRequest) (*openshellv1.GetGatewayInfoResponse, error) {
	d := g.driver
	return &openshellv1.GetGatewayInfoResponse{
		Status: openshellv1.ServiceStatus_SERVICE_STATUS_HEALTHY, GatewayVersion: brand.Version,
		ComputeDrivers: []*openshellv1.ComputeDriverInfo{{Name: d.Name, Capabilities: &openshellv1.ComputeDriverCapabilities{
			DriverName: d.Name, DriverVersion: d.Version,
			ResourceCapabilities: &openshellv1.ResourceCapabilities{
				Gpu: &openshellv1.GpuResourceCapabilities{DefaultSelectionSupported: d.GPU, CountSelectionSupported: d.GPU}},
		}}},
	}, nil
}
