"""Knows principals, their keys and roles, and issues their tokens. Imports audit."""
