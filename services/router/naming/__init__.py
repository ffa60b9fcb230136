"""Resolves model names to versions that are ready to be called. Imports queueing and fleet."""
