"""The models that the suite calls: what each takes, gives and does, and ready-made ones for several
servers.
"""

from __future__ import annotations

from stellwerk.conformance.models.definitions import (
    MODELS,
    Behaviour,
    ConformanceModel,
    Spec,
    echo_of,
)

__all__ = ["MODELS", "Behaviour", "ConformanceModel", "Spec", "echo_of"]
