"""Keeps the broker port without a broker: the router's own queues, over gRPC. Imports the modules of broker."""
