"""Serves and calls gRPC: server, channels, the guard around each RPC. Imports access."""
