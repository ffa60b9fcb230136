"""Serves the Open Inference Protocol's RPCs. Imports fleet, naming and calls."""
