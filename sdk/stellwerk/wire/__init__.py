"""What two processes must agree on: names, errors, metadata, tensors, envelopes, topology. Pure: no
I/O, no clock.
"""
