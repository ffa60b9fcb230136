"""Attaches to a router, advertises this runtime and serves what the router asks for.

Imports formats and models.
"""
