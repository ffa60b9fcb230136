"""Stellwerk beside Triton and MLServer: the conformance suite on all three, and the same requests
to two of them.

Not part of `make test`, because Triton's wheel is large; `make conformance` runs it and writes
docs/conformance/.
"""
