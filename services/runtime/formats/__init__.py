"""Model formats, one plug-in each: a small module that is always imported, and one that comes with
its libraries.
"""
