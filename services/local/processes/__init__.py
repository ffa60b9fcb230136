"""Starts, watches and ends child processes, and takes their logs. Imports no other room."""
