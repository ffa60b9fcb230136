"""Sends requests to the platform: HTTP or gRPC, blocking or asynchronous, behind one port.

Imports nothing of the other rooms.
"""
