"""Calls models in worker threads: one call for a batch of requests, or one stream of answers.

Imports formats and requests.
"""
