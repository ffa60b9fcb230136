"""The command `stellwerk`: a module per kind of resource.

Imports resources. What takes long to import is imported in the functions that need it, so that
`--help` answers at once.
"""
