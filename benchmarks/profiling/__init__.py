"""The profile of a request: its CPU time by process and, within the services, by room and library.
Imports the systems and the load generators of `benchmarks`.
"""
