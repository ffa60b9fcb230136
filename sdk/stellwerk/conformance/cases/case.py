"""A case of the suite: one sentence about a server's behaviour, the basis for expecting it, and the
function that checks it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from stellwerk.conformance.server.subject import Subject, Transport

# Returns if the server behaves so; raises Mismatch or NotApplicable otherwise.
Check = Callable[[Subject], None]


class Basis(StrEnum):
    """The reason to expect a behaviour; a report counts the three apart."""

    # The protocol's text, or the text of an extension, says so.
    SPECIFIED = "specified"
    # The text leaves it open and the common clients rely on it.
    CONVENTION = "convention"
    # The text is silent; we expect the behaviour that helps callers most.
    SENSIBLE = "sensible"


class Area(StrEnum):
    """The part of the protocol that a case belongs to; a report has a table for each."""

    REST = "core REST"
    HEALTH = "health bodies"
    GRPC = "core gRPC"
    DATATYPES = "tensors and datatypes"
    REST_ERRORS = "errors over REST"
    GRPC_ERRORS = "errors over gRPC"
    LIMITS = "limits"
    COMPRESSION = "compression"
    BINARY = "binary tensor data"
    PARAMETERS = "parameters"
    STREAMING = "streaming"
    STATISTICS = "statistics"
    CONFIGURATION = "model configuration"
    REPOSITORY = "model repository"
    GENERATE = "generate"
    SHARED_MEMORY = "shared memory"


# Parts of a case's name that stand for its area, where the transport says the rest.
_AREA_NAMES: dict[Area, list[str]] = {
    Area.REST: [],
    Area.GRPC: [],
    Area.REST_ERRORS: ["errors"],
    Area.GRPC_ERRORS: ["errors"],
}


@dataclass(frozen=True, slots=True)
class Case:
    """A behaviour that the suite checks, with its basis."""

    name: str
    area: Area
    title: str
    basis: Basis
    # The document that specifies the behaviour, or the clients that rely on it; "" for neither.
    place: str
    transport: Transport
    # The extension that the behaviour belongs to; "" for the core of the protocol.
    extension: str
    check: Check
    # A weak server may not survive the case, so it is tried last.
    hostile: bool = False


class Cases:
    """Collects the cases of one area as their functions are defined."""

    def __init__(
        self,
        area: Area,
        transport: Transport,
        place: str = "",
        extension: str = "",
        hostile: bool = False,
    ) -> None:
        self.area = area
        self.transport = transport
        self.place = place
        self.extension = extension
        self.hostile = hostile
        self.all: list[Case] = []

    def add(
        self,
        name: str,
        title: str,
        basis: Basis,
        check: Check,
        place: str = "",
        *,
        hostile: bool = False,
    ) -> None:
        """Adds a case; its name is `transport.area.name`."""
        parts = [str(self.transport), *_AREA_NAMES.get(self.area, [self.area.name.lower()]), name]
        place = place or ("" if basis is Basis.SENSIBLE else self.place)
        hostile = hostile or self.hostile
        known = Case(
            ".".join(parts),
            self.area,
            title,
            basis,
            place,
            self.transport,
            self.extension,
            check,
            hostile,
        )
        self.all.append(known)

    def specified(self, title: str, place: str = "") -> Callable[[Check], Check]:
        """Decorates the check of a case that the text specifies."""
        return self._decorator(title, Basis.SPECIFIED, place)

    def convention(self, title: str, place: str = "") -> Callable[[Check], Check]:
        """Decorates the check of a case that the common clients rely on."""
        return self._decorator(title, Basis.CONVENTION, place)

    def sensible(self, title: str, place: str = "") -> Callable[[Check], Check]:
        """Decorates the check of a case that is our reading."""
        return self._decorator(title, Basis.SENSIBLE, place)

    def _decorator(self, title: str, basis: Basis, place: str) -> Callable[[Check], Check]:
        def take(check: Check) -> Check:
            self.add(check.__name__.strip("_"), title, basis, check, place)
            return check

        return take
