"""Serves gRPC: passes each public RPC on to the service that serves it.

Imports routing and upstream.
"""
