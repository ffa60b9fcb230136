"""The rules that two processes share: names, errors, metadata, tensors, topology, permissions.

Pure: no I/O, no clock, no random numbers.
"""
