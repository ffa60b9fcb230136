"""Describes one request, of an item or of members of a group: its layout, its policy, and whether
it may share a model call with others.

Imports formats.
"""
