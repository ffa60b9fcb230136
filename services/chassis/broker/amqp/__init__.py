"""Keeps the broker port on RabbitMQ, over pika. Imports the modules of broker."""
