"""Serves HTTP: reads requests, sends answers and logs both. Knows no RPC by name. Imports routing and config."""
