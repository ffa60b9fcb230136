"""A case of the suite: one sentence about what a server does, why we may expect it, and the
function that looks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stellwerk.conformance.server.subject import Subject

Check = Callable[["Subject"], None]


class Basis(StrEnum):
    """Why a server should behave so; a report counts the three apart."""

    # The protocol's text, or the text of an extension, says so.
    SPECIFIED = "specified"
    # The text leaves it open and the common clients rely on it.
    CONVENTION = "convention"
    # The text is silent; this is our reading of what helps callers most.
    SENSIBLE = "sensible"


class Area(StrEnum):
    """What a case belongs to; a report has a table for each."""

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


# What stands for an area in the name of a case, where the transport says it already.
_AREA_NAMES: dict[Area, list[str]] = {
    Area.REST: [],
    Area.GRPC: [],
    Area.REST_ERRORS: ["errors"],
    Area.GRPC_ERRORS: ["errors"],
}


class Transport(StrEnum):
    """The way to the server that a case takes."""

    REST = "rest"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True)
class Case:
    """`check` returns if all is well; it raises Mismatch or NotApplicable otherwise."""

    name: str
    area: Area
    title: str
    basis: Basis
    # Where it is written, or where the clients are that rely on it; "" for a sensible reading of
    # nothing.
    place: str
    transport: Transport
    # The extension that it belongs to; "" for the core of the protocol.
    extension: str
    check: Check
    # A weak server may not survive it; such cases are tried last.
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
        self.area, self.transport, self.place, self.extension = area, transport, place, extension
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
