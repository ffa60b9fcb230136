"""A stand-in for services.runtime."""
