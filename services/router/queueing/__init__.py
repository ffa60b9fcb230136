"""Orders, bounds and times the requests that wait for a reply. Pure: no I/O, and time is an
argument. Imports no other room.
"""
