"""The broker port and its two adapters: RabbitMQ (`amqp`) and the embedded one over gRPC
(`pull`).
"""
