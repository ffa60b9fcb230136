"""Describes one request: its layout, its policy, and whether it may share a model call with others.

Imports formats.
"""
