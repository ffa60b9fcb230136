"""Translates between JSON and protobuf messages by the rules of google.api.http. Pure.

Imports routing.
"""
