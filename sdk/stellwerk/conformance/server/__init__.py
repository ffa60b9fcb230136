"""Talks to the server under test over REST and gRPC.

Imports models.
"""
