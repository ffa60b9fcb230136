"""A stand-in for services.api_gateway."""
