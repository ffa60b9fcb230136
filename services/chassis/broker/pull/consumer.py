"""One consumer or subscription over the pull stream; it begins again on each new session."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from services.chassis import background
from services.chassis.broker.port import Handler
from services.chassis.broker.pull import frames as pull_frames
from services.chassis.broker.pull.results import check
from services.chassis.broker.pull.session import Session
from stellwerk.job.v1 import pull_service_pb2 as pull
from stellwerk.wire.errors import BrokerDown, ServiceError
from stellwerk.wire.topology import QueueSpec

_log = structlog.get_logger("broker")


class PullConsumer:
    """See `port.Consumer`; `queue` is None for a subscription."""

    def __init__(
        self,
        queue: QueueSpec | None,
        consume: pull.Consume,
        handler: Handler,
        on_cancel: Callable[[PullConsumer], None],
    ) -> None:
        self._queue = queue
        self._consume = consume
        self._handler = handler
        self._on_cancel = on_cancel
        self._session: Session | None = None
        self._number = 0
        self._cancelled = False

    async def begin(self, session: Session) -> None:
        """Declares the queue and starts deliveries. Raises Conflict, BrokerDown."""
        if self._queue is not None:
            _, declared = session.ask(
                pull.ExchangeRequest(declare=pull_frames.declaration(self._queue))
            )
            check(pull_frames.RESULTS[(await declared).result], self._queue.name)
        # The number is known before the first delivery can arrive.
        self._number, consuming = session.ask(pull.ExchangeRequest(consume=self._consume))
        self._session = session
        session.handlers[self._number] = self._handler
        try:
            check(pull_frames.RESULTS[(await consuming).result], self._consume.queue)
        except BaseException:
            self._withdraw(session)
            raise
        if self._cancelled:
            self._withdraw(session)

    async def begin_again(self, session: Session) -> None:
        """Begins on a new session, however long it takes.

        The lost session may hold an exclusive queue until the router notices its end.
        """

        async def begin(_: Callable[[], None]) -> None:
            if self._cancelled:
                return
            try:
                await self.begin(session)
            except BrokerDown:
                return  # this session has ended too; the next one begins again

        await background.retry(begin, self._refused, expected=ServiceError)

    async def cancel(self) -> None:
        """Ends deliveries; see `port.Consumer`."""
        self._cancelled = True
        self._on_cancel(self)
        if self._session is not None and self._session.handlers.pop(self._number, None) is not None:
            try:
                await self._session.ask(pull.ExchangeRequest(cancel=self._number))[1]
            except BrokerDown:
                return  # the session has ended, and its consumers with it

    def _refused(self, error: Exception, repeats: bool) -> None:
        if not repeats:
            _log.warning("broker_refused_consumer", queue=self._consume.queue, cause=str(error))

    def _withdraw(self, session: Session) -> None:
        session.handlers.pop(self._number, None)
        session.tell(pull.ExchangeRequest(cancel=self._number))
