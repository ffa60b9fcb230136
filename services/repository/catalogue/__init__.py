"""Names, checks and stores buckets, models, versions and aliases. Imports events."""
