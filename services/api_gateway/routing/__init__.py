"""Finds the RPC that an HTTP method and path call. Imports no other room."""
