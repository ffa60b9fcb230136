"""Offers the platform's resources: models, buckets, the runtime, access, the audit ledger.

Imports session and packaging.
"""
