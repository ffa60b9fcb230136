"""Names of queues: the same for the same thing, different for different things, and never longer
than AMQP allows.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stellwerk.type.v1.requirements_pb2 import Requirements
from stellwerk.wire import topology
from stellwerk.wire.names import ModelName

# AMQP's short strings.
_LONGEST_NAME = 255


def test_what_requires_nothing_shares_one_queue() -> None:
    version = "buckets/default/models/iris/versions/3"

    assert topology.serving_key(version, Requirements()) == "default/iris/3/any"
    assert (
        topology.inference_queue("default/iris/3/any").name == "stellwerk.infer.default/iris/3/any"
    )


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=6), st.randoms())
def test_the_order_in_which_labels_were_given_does_not_show(
    labels: dict[str, str], random: st.Random
) -> None:
    shuffled = list(labels.items())
    random.shuffle(shuffled)

    one, two = Requirements(labels=labels), Requirements(labels=dict(shuffled))

    assert topology.requirements_digest(one) == topology.requirements_digest(two)


def test_other_requirements_are_another_queue() -> None:
    digests = {
        topology.requirements_digest(Requirements(labels=labels))
        for labels in ({}, {"a": "b"}, {"a": "c"}, {"b": "a"})
    }

    assert len(digests) == 4


def test_the_longest_names_fit() -> None:
    longest = str(ModelName("b" * 63, "m" * 63, version=10**18 - 1))
    key = topology.serving_key(longest, Requirements(labels={"zone": "west"}))

    assert len(topology.inference_queue(key).name.encode()) <= _LONGEST_NAME


def test_an_answer_queue_belongs_to_one_process_and_an_inference_queue_is_bounded() -> None:
    reply, work = topology.reply_queue("router-1"), topology.inference_queue("k")

    assert reply.exclusive
    assert reply.name != topology.reply_queue("router-2").name
    assert 0 < work.max_length < 100_000
    assert work.expires_ms > 0
    assert not work.exclusive
