"""The nouns of the SDK: models, runtimes, buckets, access and audit. Imports session and packaging."""
