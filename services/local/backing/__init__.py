"""Runs the MongoDB and RabbitMQ servers of a local platform, or tries the ones that it is given.
Imports processes.
"""
