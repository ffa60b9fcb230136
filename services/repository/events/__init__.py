"""Records an event with each change of a model and publishes events in the order of the commits.
Imports no other room.
"""
