"""Verifies callers, proves who this process is, and records what callers changed.

Imports no room.
"""
