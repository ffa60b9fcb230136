"""Holds the cases of the suite, a module for each area and transport.

Imports server.
"""
