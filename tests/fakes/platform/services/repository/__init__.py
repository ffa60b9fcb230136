"""A stand-in for services.repository."""
