"""Sends requests to the broker and takes in their replies. Imports queueing."""
