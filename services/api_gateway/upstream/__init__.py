"""Calls the services behind the gateway over gRPC. Imports routing."""
