"""Defines the models that the suite calls, and writes them for several servers.

Imports nothing of the other rooms.
"""
