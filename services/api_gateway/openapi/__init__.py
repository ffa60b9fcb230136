"""Describes the REST API as an OpenAPI document. Imports routing, transcoding and http."""
