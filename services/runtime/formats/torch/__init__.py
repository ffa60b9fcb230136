"""Loads PyTorch programs and weights. Imports formats.port and formats.installed."""
