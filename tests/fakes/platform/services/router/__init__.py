"""A stand-in for services.router."""
