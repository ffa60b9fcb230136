"""Keeps the audit ledger, a chain of entries that shows any change to them. Imports config alone."""
