"""Runs a process from its start to its end. Imports broker, access and rpc."""
