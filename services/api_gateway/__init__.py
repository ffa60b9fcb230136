"""The gateway: the one public door, HTTP and gRPC. It turns requests into calls and decides nothing; it owns no data."""
