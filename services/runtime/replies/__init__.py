"""Answers requests: encodes and sends replies, counts and logs them, and remembers responses.

Imports requests and execution.
"""
