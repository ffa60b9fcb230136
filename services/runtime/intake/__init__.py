"""Takes deliveries from the broker and sees each request through to its reply.

Imports formats, requests, batching, models and replies.
"""
