"""Records an event with each change of a model and publishes events in the order of the commits.
May import the root's config, metrics and mongo, and no other room.
"""
