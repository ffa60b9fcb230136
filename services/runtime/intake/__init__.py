"""Takes deliveries from the broker and sees each request through to its reply.

Imports formats, requests, execution, batching, models and replies.
"""
