"""Knows the attached runtimes and decides which of them serves which model. Imports queueing."""
