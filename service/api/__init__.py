"""The gRPC API: decodes a request, calls, encodes the answer."""
