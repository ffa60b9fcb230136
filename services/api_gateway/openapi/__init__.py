"""Describes the REST API as an OpenAPI document, and shows it.

Imports http, routing and transcoding.
"""
