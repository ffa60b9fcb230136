"""Encodes, sends and reports the replies to requests. Imports requests and execution."""
