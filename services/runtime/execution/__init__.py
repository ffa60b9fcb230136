"""Runs model calls in worker threads. Imports formats and requests."""
