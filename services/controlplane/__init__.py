"""The control plane: who may do what, what should run, what happened. The only issuer of the
platform's own tokens.
"""
