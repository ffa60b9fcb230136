"""Keeps the audit ledger, a chain of entries in which every later change shows. Imports no other
room.
"""
