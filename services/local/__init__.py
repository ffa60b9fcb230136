"""The platform on one machine: its five services, a MongoDB and a RabbitMQ of its own as child
processes.
"""
