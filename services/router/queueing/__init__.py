"""Orders, bounds and times the requests that wait for an answer. Pure. Imports config alone."""
