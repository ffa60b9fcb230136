"""Writes a run's results as text, JSON and Markdown. Imports the modules of conformance."""
