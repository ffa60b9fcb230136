"""The command `stellwerk`: a module per kind of resource.

May import the rest of `stellwerk.client` and, when a command runs, `stellwerk.conformance`. Imports
of more than the standard library and click stand in functions, so that `--help` answers at once.
"""
