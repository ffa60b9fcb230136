"""Queues the requests of each model and decides which of them share a call, and when it starts.

Imports requests and execution.
"""
