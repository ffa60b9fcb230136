"""The hub's state machine: whatever happens in whatever order, nothing is lost, doubled or
delivered beyond a bound.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from services.chassis.broker.port import Depth, Message
from services.chassis.broker.pull.hub import Dispatch, Hub
from services.chassis.broker.pull.results import Result
from stellwerk.wire.topology import QueueSpec

MAX_LENGTH = 5
QUEUES = {name: QueueSpec(name, max_length=MAX_LENGTH) for name in ("a", "b")}


class Collector:
    """A sink that keeps what it is given, and says when it has enough."""

    def __init__(self, capacity: int = 1_000_000) -> None:
        self.dispatches: list[Dispatch] = []
        self.capacity = capacity

    def deliver(self, dispatch: Dispatch) -> bool:
        self.dispatches.append(dispatch)
        self.capacity -= 1
        return self.capacity > 0


class HubMachine(RuleBasedStateMachine):
    """Random publishers, consumers and losses, against a model that only counts where each message
    may be.
    """

    connections = Bundle("connections")

    def __init__(self) -> None:
        super().__init__()
        self.hub, self.now, self.next_body = Hub(), 0.0, 0
        self.sinks: dict[int, Collector] = {}
        self.prefetch: dict[tuple[int, int], int] = {}
        self.accepted: dict[bytes, str] = {}
        self.expires: dict[bytes, float] = {}
        self.done: set[bytes] = set()
        self.held: dict[tuple[int, int], tuple[int, bytes]] = {}
        self.seen: Counter[bytes] = Counter()
        setup = self._connect()
        for spec in QUEUES.values():
            assert self.hub.declare(setup, spec, self.now) is Result.OK

    def _connect(self) -> int:
        sink = Collector()
        connection = self.hub.connect(sink)
        self.sinks[connection] = sink
        return connection

    @rule(target=connections)
    def connect(self) -> int:
        return self._connect()

    @rule(connection=connections, queue=st.sampled_from(sorted(QUEUES)), prefetch=st.integers(0, 3))
    def consume(self, connection: int, queue: str, prefetch: int) -> None:
        number = len(self.prefetch) + 1
        self.prefetch[connection, number] = prefetch
        assert self.hub.consume(connection, number, queue, prefetch, self.now) is Result.OK
        self._collect()

    @rule(queue=st.sampled_from(sorted(QUEUES)), expiration_ms=st.sampled_from([0, 0, 500]))
    def publish(self, queue: str, expiration_ms: int) -> None:
        self.next_body += 1
        body = str(self.next_body).encode()
        depth = self.hub.inspect(queue, self.now)
        result = self.hub.publish(
            queue, Message(body, expiration_ms=expiration_ms), self.now, mandatory=True
        )
        if result is Result.OK:
            self.accepted[body] = queue
            if expiration_ms:
                self.expires[body] = self.now + expiration_ms / 1000
        else:
            assert result is Result.FULL
            assert depth.messages >= MAX_LENGTH
        self._collect()

    @precondition(lambda self: self.held)
    @rule(data=st.data(), ack=st.booleans())
    def settle(self, data: st.DataObject, ack: bool) -> None:
        connection, tag = data.draw(st.sampled_from(sorted(self.held)))
        _, body = self.held.pop((connection, tag))
        if ack:
            self.done.add(body)
        self.hub.settle(connection, tag, self.now, ack=ack)
        self.hub.settle(connection, tag, self.now, ack=not ack)  # the second time does nothing
        self._collect()

    @rule(connection=consumes(connections))
    def lose(self, connection: int) -> None:
        self.held = {key: value for key, value in self.held.items() if key[0] != connection}
        self.hub.disconnect(connection, self.now)
        del self.sinks[connection]
        self._collect()

    @precondition(lambda self: self.prefetch)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        connection, number = data.draw(st.sampled_from(sorted(self.prefetch)))
        if connection in self.sinks:
            self.hub.cancel(connection, number, self.now)

    @rule(seconds=st.sampled_from([0.1, 0.6]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.hub.expire(self.now)
        self._collect()

    def _collect(self) -> None:
        for connection, sink in self.sinks.items():
            for dispatch in sink.dispatches:
                body = dispatch.message.body
                assert body not in self.done, "an acknowledged message came again"
                assert body not in {held for _, held in self.held.values()}, (
                    "a message is in two hands"
                )
                assert dispatch.redelivered == (self.seen[body] > 0)
                assert self.expires.get(body, self.now + 1) > self.now, (
                    "an expired message was delivered"
                )
                assert dispatch.routing_key == self.accepted.get(body, dispatch.routing_key)
                self.seen[body] += 1
                self.held[connection, dispatch.tag] = (dispatch.consumer, body)
            sink.dispatches.clear()

    @invariant()
    def prefetch_is_never_exceeded(self) -> None:
        in_hand = Counter(
            (connection, consumer) for (connection, _), (consumer, _) in self.held.items()
        )
        assert all(
            not self.prefetch[key] or count <= self.prefetch[key] for key, count in in_hand.items()
        )

    @invariant()
    def nothing_is_lost(self) -> None:
        in_hand = {body for _, body in self.held.values()}
        for name in QUEUES:
            missing = [
                b
                for b, queue in self.accepted.items()
                if queue == name and b not in self.done | in_hand
            ]
            may_be_expired = sum(
                1 for body in missing if self.expires.get(body, self.now + 1) <= self.now
            )
            waiting = self.hub.inspect(name, self.now).messages
            assert len(missing) - may_be_expired <= waiting <= len(missing)


TestHubMachine = HubMachine.TestCase
TestHubMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def _hub(*specs: QueueSpec) -> tuple[Hub, int, Collector]:
    hub, sink = Hub(), Collector()
    connection = hub.connect(sink)
    for spec in specs:
        assert hub.declare(connection, spec, 0) is Result.OK
    return hub, connection, sink


def _bodies(sink: Collector) -> list[bytes]:
    return [dispatch.message.body for dispatch in sink.dispatches]


def test_what_is_given_back_returns_to_its_place_in_the_queue() -> None:
    hub, connection, sink = _hub(QueueSpec("q"))
    hub.consume(connection, 1, "q", 3, 0)
    for body in (b"1", b"2", b"3", b"4"):
        hub.publish("q", Message(body), 0, mandatory=True)
    tags = [dispatch.tag for dispatch in sink.dispatches]
    hub.cancel(connection, 1, 0)

    for tag in (tags[2], tags[0], tags[1]):
        hub.settle(connection, tag, 0, ack=False)

    sink.dispatches.clear()
    hub.consume(connection, 2, "q", 0, 0)
    assert _bodies(sink) == [b"1", b"2", b"3", b"4"]
    assert [dispatch.redelivered for dispatch in sink.dispatches] == [True, True, True, False]


def test_consumers_take_turns() -> None:
    hub, connection, sink = _hub(QueueSpec("q"))
    for number in (1, 2, 3):
        hub.consume(connection, number, "q", 2, 0)

    for _ in range(7):
        hub.publish("q", Message(b"x"), 0, mandatory=True)

    assert [dispatch.consumer for dispatch in sink.dispatches] == [1, 2, 3, 1, 2, 3]


def test_a_sink_that_has_enough_gets_no_more_until_it_resumes() -> None:
    hub, sink = Hub(), Collector(capacity=2)
    connection = hub.connect(sink)
    hub.declare(connection, QueueSpec("q"), 0)
    hub.consume(connection, 1, "q", 0, 0)

    for number in range(5):
        hub.publish("q", Message(b"%d" % number), 0, mandatory=True)
    assert _bodies(sink) == [b"0", b"1"]
    assert hub.inspect("q", 0) == Depth(3, 1)

    sink.capacity = 10
    hub.resume(connection, 0)
    assert _bodies(sink) == [b"0", b"1", b"2", b"3", b"4"]


def test_an_exclusive_queue_is_refused_to_others_and_goes_with_its_owner() -> None:
    mine = QueueSpec("mine", durable=False, exclusive=True)
    hub, connection, _ = _hub(mine)
    other = hub.connect(Collector())

    assert hub.declare(other, mine, 0) is Result.MISMATCH
    assert hub.consume(other, 1, "mine", 0, 0) is Result.MISMATCH
    assert hub.publish("mine", Message(b"x"), 0, mandatory=True) is Result.OK

    hub.disconnect(connection, 0)
    assert hub.publish("mine", Message(b"x"), 0, mandatory=True) is Result.UNROUTABLE


def test_a_queue_expires_only_while_nobody_consumes() -> None:
    hub, connection, _ = _hub(QueueSpec("q", expires_ms=1000))
    hub.consume(connection, 1, "q", 1, 0)
    hub.expire(10)
    assert hub.inspect("q", 10) == Depth(0, 1)

    hub.cancel(connection, 1, 10)
    hub.expire(10.9)
    assert hub.declare(connection, QueueSpec("q", expires_ms=1000), 10.9) is Result.OK
    hub.expire(11.8)
    assert hub.publish("q", Message(b"x"), 11.8, mandatory=True) is Result.OK
    hub.expire(11.9)
    assert hub.publish("q", Message(b"x"), 11.9, mandatory=True) is Result.UNROUTABLE


def test_expired_messages_make_room_in_a_full_queue() -> None:
    hub, _, _ = _hub(QueueSpec("q", max_length=2))
    for _ in range(2):
        hub.publish("q", Message(b"x", expiration_ms=100), 0, mandatory=True)

    assert hub.publish("q", Message(b"y"), 0.05, mandatory=True) is Result.FULL
    assert hub.publish("q", Message(b"y"), 0.2, mandatory=True) is Result.OK
    assert hub.inspect("q", 0.2).messages == 1


def test_nothing_is_left_of_a_connection_that_is_gone() -> None:
    hub, connection, sink = _hub(QueueSpec("q"))
    hub.subscribe(connection, 1, "#")
    hub.consume(connection, 2, "q", 0, 0)
    hub.disconnect(connection, 0)
    hub.disconnect(connection, 0)

    hub.publish_event("any", Message(b"x"))
    hub.publish("q", Message(b"x"), 0, mandatory=True)

    assert sink.dispatches == []
    assert hub.inspect("q", 0) == Depth(1, 0)
