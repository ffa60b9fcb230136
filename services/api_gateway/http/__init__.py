"""Serves HTTP: reads requests, sends responses and logs both; knows no RPC by name.

Imports routing.
"""
