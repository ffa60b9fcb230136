"""Carries messages between processes: a port and its two adapters, RabbitMQ (`amqp`) and the router's own queues over gRPC (`pull`). Imports no room."""
