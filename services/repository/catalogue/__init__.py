"""Names, describes and stores models, versions, aliases and buckets. Imports events."""
