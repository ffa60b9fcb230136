"""Carries operations out: each is a plan of steps, sent over a transport and retried where that is
safe.

Imports transport.
"""
