"""Serves and calls gRPC: connections, the guard around each RPC and its log line. Imports access and the modules of chassis."""
