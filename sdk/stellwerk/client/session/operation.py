"""Turns a method that returns a plan into one that carries the plan out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from stellwerk.client.session.plan import Plan
from stellwerk.client.session.session import AsyncSession, SyncSession

T = TypeVar("T")
P = ParamSpec("P")
S_co = TypeVar("S_co", covariant=True)


class HasSession(Protocol[S_co]):
    """An object whose methods may be operations: a resource."""

    @property
    def session(self) -> S_co:
        """Returns the session that carries the plans out."""
        ...


class operation(Generic[P, T]):
    """A method that carries out the plan which the decorated method returns.

    It blocks on a resource with a SyncSession, and is to be awaited on one with an AsyncSession.
    """

    def __init__(self, plan: Callable[Concatenate[Any, P], Plan[T]]) -> None:
        self.plan = plan
        functools.update_wrapper(self, plan)  # type: ignore[arg-type]

    @overload
    def __get__(self, resource: None, owner: type) -> operation[P, T]: ...
    @overload
    def __get__(self, resource: HasSession[SyncSession], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(
        self, resource: HasSession[AsyncSession], owner: type
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, resource: Any, owner: type) -> Any:
        if resource is None:
            return self

        @functools.wraps(self.plan)
        def carry_out(*args: P.args, **kwargs: P.kwargs) -> Any:
            return resource.session.run(self.plan(resource, *args, **kwargs))

        return carry_out
