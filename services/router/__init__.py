"""Secures every request, chooses where it runs, waits for it; keeps the ledger of jobs; knows every
runtime.
"""
