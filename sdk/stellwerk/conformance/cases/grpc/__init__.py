"""Cases over gRPC."""
