"""Names, checks and stores buckets, models, versions and aliases. May import the root's config,
metrics and mongo, and events.
"""
