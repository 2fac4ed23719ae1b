"""The gRPC API: servicer, interceptors, server."""
