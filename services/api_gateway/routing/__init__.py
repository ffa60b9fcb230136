"""Finds the RPC that an HTTP method and path call. Imports config alone."""
