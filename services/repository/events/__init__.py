"""Publishes what happened to models, in the order of the commits. Imports config alone."""
