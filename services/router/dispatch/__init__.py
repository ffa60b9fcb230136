"""Sends requests to the broker and hears their replies. Imports queueing."""
