"""Starts, watches and stops one process. Imports all other rooms of chassis."""
