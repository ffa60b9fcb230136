"""Runs the MongoDB and RabbitMQ servers that a local platform needs. Imports processes."""
