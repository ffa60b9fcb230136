"""A stand-in for services.controlplane."""
