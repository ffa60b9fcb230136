"""Invokes models: resolves a name, makes the version ready, sends the work. Every door of the
router comes here, and nowhere else are the three put together.

A call of a model that is known and served is sent without waiting for anything.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from services.chassis import context
from services.chassis.futures import settle
from services.router.calls.statistics import Statistics
from services.router.dispatch.dispatcher import Dispatcher
from services.router.fleet.placement import DesiredReplica
from services.router.fleet.reconciler import Reconciler
from services.router.naming.directory import ModelDirectory
from services.router.naming.target import ModelTarget
from services.router.queueing.members import GroupWork
from services.router.queueing.pending_requests import Outcome
from stellwerk.job.v1 import work_pb2
from stellwerk.type.v1 import requirements_pb2
from stellwerk.wire import metadata as keys
from stellwerk.wire.errors import ServiceError, from_work_error
from stellwerk.wire.names import ModelName

_NO_REQUIREMENTS = requirements_pb2.Requirements()
# Bytes beside its data that a member of a group counts as while it waits, as a request does.
_MEMBER_BYTES = 200


class Invocation(Protocol):
    """One invocation of a model, as `Invocations` reads and marks it."""

    @property
    def work(self) -> work_pb2.WorkItem: ...
    @property
    def deadline(self) -> float:
        """In time.monotonic()."""

    # The version, once the name is resolved.
    target: ModelTarget | None
    # The id at the dispatcher, "" until the work is sent.
    id: str

    def on_reply(self, outcome: Outcome, /) -> None:
        """Takes each reply, and the error that ends the invocation without a last reply."""


class GroupInvocation(Protocol):
    """Invocations of one model in one form that are made together, as members of a group."""

    work: work_pb2.WorkItem
    # The indexes of the members that have not ended before the work is sent.
    waiting: list[int]
    # The version, once the name is resolved.
    target: ModelTarget | None
    # The members' work once it is sent: from then on they end by the handler in it.
    sent: GroupWork | None

    @property
    def deadline(self) -> float: ...
    def members(self) -> GroupWork: ...


class _Unary:
    """An invocation with a single reply."""

    def __init__(self, work: work_pb2.WorkItem, deadline: float) -> None:
        self.work = work
        self.deadline = deadline
        self.target: ModelTarget | None = None
        self.id = ""
        loop = asyncio.get_running_loop()
        self.reply: asyncio.Future[work_pb2.WorkReply] = loop.create_future()

    def on_reply(self, outcome: Outcome, /) -> None:
        settle(self.reply, outcome)


class Invocations:
    """Resolves names, makes versions ready and sends work to them."""

    def __init__(
        self,
        directory: ModelDirectory,
        reconciler: Reconciler,
        dispatcher: Dispatcher,
        statistics: Statistics,
        max_input_bytes: int,
    ) -> None:
        """Bounds the data of all inputs of a request together by `max_input_bytes`."""
        self._directory = directory
        self._reconciler = reconciler
        self._registry = reconciler.registry
        self._dispatcher = dispatcher
        self._statistics = statistics
        self._max_input_bytes = max_input_bytes

    def send_if_ready(self, invocation: Invocation, name: ModelName) -> bool:
        """Sends the work if the name is known and a runtime answers its version; returns whether.

        Raises InvalidInput, NotImplementedHere, TooLarge, and what `Dispatcher.submit` raises.
        """
        replica = self._ready_replica(invocation, name)
        if replica is None or invocation.target is None:
            return False
        self._send(invocation, invocation.target, replica)
        return True

    def send_group_if_ready(self, group: GroupInvocation, name: ModelName) -> bool:
        """Sends the work of a group's members, as `send_if_ready` does."""
        replica = self._ready_replica(group, name)
        if replica is None or group.target is None:
            return False
        self._send_group(group, group.target, replica)
        return True

    def _ready_replica(
        self, invocation: Invocation | GroupInvocation, name: ModelName
    ) -> DesiredReplica | None:
        """Returns the replica if the name is known, whose version it sets, and if it is ready."""
        target = self._directory.known(name)
        if target is None:
            return None
        former_versions = self._directory.former_versions
        # Nearly always empty; see `resolve`.
        if former_versions.changes and self._answers(target):
            former_versions.settled(name)
        invocation.target = target
        replica = self._replica(target, _NO_REQUIREMENTS)
        return replica if self._registry.slots[replica.key] else None

    async def send_when_ready(self, invocation: Invocation, name: ModelName) -> None:
        """Resolves the name, has a runtime load its version if need be, then sends the work.

        Raises what `resolve`, `Reconciler.make_ready` and `send_if_ready` raise.
        """
        invocation.target = target = await self.resolve(name)
        replica = self._checked_replica(target, invocation.work, _NO_REQUIREMENTS)
        await self._reconciler.make_ready(replica, invocation.deadline)
        self._send(invocation, target, replica)

    async def send_group_when_ready(self, group: GroupInvocation, name: ModelName) -> None:
        """Sends the work of a group's members, as `send_when_ready` does."""
        group.target = target = await self.resolve(name)
        replica = self._checked_replica(target, group.work, _NO_REQUIREMENTS)
        await self._reconciler.make_ready(replica, group.deadline)
        self._send_group(group, target, replica)

    async def call(
        self,
        target: ModelTarget,
        work: work_pb2.WorkItem,
        requires: requirements_pb2.Requirements = _NO_REQUIREMENTS,
    ) -> work_pb2.WorkReply:
        """Returns the reply of a version to the work of the RPC being served. `requires` holds
        requirements of the caller beyond the version's own.

        Raises the error in the reply, and what `send_when_ready` raises.
        """
        invocation = _Unary(work, context.work_deadline())
        _name_caller(work)
        replica = self._checked_replica(target, work, requires)
        began = time.perf_counter_ns()
        reply = None
        try:
            await self._reconciler.make_ready(replica, invocation.deadline)
            self._send(invocation, target, replica)
            reply = await invocation.reply
        except asyncio.CancelledError:
            self.cancel(invocation)
            raise
        finally:
            self._statistics.record(
                target.name,
                reply,
                ok=reply is not None and not reply.HasField("error"),
                now_ms=int(time.time() * 1000),
                total_ns=time.perf_counter_ns() - began,
            )
        if reply.HasField("error"):
            raise from_work_error(reply.error)
        return reply

    def cancel(self, invocation: Invocation) -> None:
        """Ends an invocation whose caller went away."""
        if invocation.id:
            self._dispatcher.cancel(invocation.id)

    def cancel_member(self, group: GroupInvocation, index: int) -> None:
        """Ends the member with this index of a group that was sent, whose caller went away."""
        if group.sent:
            self._dispatcher.groups.cancel(group.sent, index)

    async def resolve(self, name: ModelName) -> ModelTarget:
        """Returns the version to call for a name: the one that it means, or one that it meant
        before, while that is served and the new one is not yet.

        Raises ModelNotFound, VersionNotFound, AliasNotFound, Unavailable.
        """
        target = await self._directory.resolve(name)
        change = self._directory.former_versions.of(name)
        if change is None:
            return target
        earlier = (former for former in change.former if former.name != target.name)
        former = next(filter(self._answers, earlier), None)
        if former is None or self._answers(target):
            return target
        patience = change.patience(time.monotonic(), context.work_deadline())
        try:
            await self._reconciler.make_ready(self._replica(target, _NO_REQUIREMENTS), patience)
        except ServiceError:
            return target if self._answers(target) or not self._answers(former) else former
        return target

    def _answers(self, target: ModelTarget) -> bool:
        """Returns whether the version was called before and can be called again at once."""
        replica = target.replica
        return replica is not None and replica.kept and self._registry.slots[replica.key] > 0

    def _replica(
        self, target: ModelTarget, requires: requirements_pb2.Requirements
    ) -> DesiredReplica:
        """Returns the replica that serves the version under its own and these requirements."""
        if requires is not _NO_REQUIREMENTS:
            return self._reconciler.desire(target.version, requires)
        replica = target.replica
        if replica is None or not replica.kept:
            replica = target.replica = self._reconciler.desire(target.version, requires)
        replica.last_used = time.monotonic()
        return replica

    def _checked_replica(
        self,
        target: ModelTarget,
        work: work_pb2.WorkItem,
        requires: requirements_pb2.Requirements,
    ) -> DesiredReplica:
        """Returns the replica for the work. Raises InvalidInput for a method that the version does
        not have: such a mistake loads no model, and counts as no call of it.
        """
        target.method(work.method)
        return self._replica(target, requires)

    def _send(self, invocation: Invocation, target: ModelTarget, replica: DesiredReplica) -> None:
        work = invocation.work
        target.check(work, self._max_input_bytes)
        deadline = invocation.deadline
        if target.policy.default_timeout:
            # A caller may ask for less time than the owner gives, not for more.
            deadline = min(deadline, time.monotonic() + target.policy.default_timeout)
        invocation.id = self._dispatcher.submit(
            replica.key,
            work,
            deadline=deadline,
            on_reply=invocation.on_reply,
            tenant=work.context.get(keys.PRINCIPAL, ""),
            policy=target.policy,
        )

    def _send_group(
        self, group: GroupInvocation, target: ModelTarget, replica: DesiredReplica
    ) -> None:
        form, work = group.work, group.members()
        size = target.check(form, self._max_input_bytes, len(work.deadlines))
        work.member_bytes = size + _MEMBER_BYTES
        if timeout := target.policy.default_timeout:
            work.shorten(time.monotonic() + timeout)
        members = [*group.waiting]
        tenant = form.context.get(keys.PRINCIPAL, "")
        self._dispatcher.submit_group(replica.key, work, members, tenant, target.policy)
        group.sent = work


def _name_caller(work: work_pb2.WorkItem) -> None:
    """Names the caller of the RPC being served in the work's context."""
    call = context.current()
    if call is None:
        return
    facts = {
        keys.REQUEST_ID: call.request_id,
        keys.TRACEPARENT: call.traceparent,
        keys.PRINCIPAL: call.principal.name if call.principal else "",
    }
    work.context.update({key: value for key, value in facts.items() if value})
