"""Defines the one error that ends `stellwerk up`."""

from __future__ import annotations


class StartFailed(Exception):
    """Raised when the platform or one of its processes cannot start.

    The message is one sentence for the user: what is wrong, where, and what to do.
    """
