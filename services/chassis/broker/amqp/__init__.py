"""Implements the broker port on RabbitMQ, over pika. Imports no room."""
