"""Implements the broker port without a broker, on queues of the router over gRPC.

Imports no room.
"""
