"""Starts, watches, logs and restarts child processes. Imports config alone."""
