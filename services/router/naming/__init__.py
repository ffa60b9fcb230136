"""Resolves model names to versions. Imports queueing and fleet."""
