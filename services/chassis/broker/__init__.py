"""Carries messages between processes: a port, and adapters for RabbitMQ and the router's queues.

Imports no room.
"""
