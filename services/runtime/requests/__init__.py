"""Describes one caller's request, its layout and whether it may share a model call. Imports formats."""
