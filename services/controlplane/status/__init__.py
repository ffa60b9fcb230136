"""Asks every service for its state and tells the state of the platform. Imports config alone."""
