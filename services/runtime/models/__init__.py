"""Fetches, loads, keeps and frees models. Imports formats."""
