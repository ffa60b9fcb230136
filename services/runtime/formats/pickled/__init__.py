"""Loads pickles, which run the code that they carry. Imports sklearn."""
