"""Fetches artifacts, loads models, keeps them in memory and frees them. Imports formats."""
