"""Serves text generation and all streams of replies over REST.

Imports http, open_inference, transcoding and upstream.
"""
