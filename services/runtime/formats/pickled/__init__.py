"""Loads pickles, which run the code they carry. Imports formats.port, formats.installed and formats.sklearn."""
