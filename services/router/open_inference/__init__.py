"""Serves the RPCs of the Open Inference Protocol. Imports fleet, naming and calls."""
