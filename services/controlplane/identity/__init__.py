"""Keeps principals, their API keys and roles, and issues access tokens. Imports no other room."""
