"""The parts of the comparison that need no server: its requests, what counts as equal, and what is
explained.
"""

from __future__ import annotations

import json

import pytest

from stellwerk.conformance.server.subject import Transport
from stellwerk.conformance.values import Tensor, sample
from tests.differential.comparison import Comparison
from tests.differential.damage import MESSAGE_DAMAGES, REST_DAMAGES
from tests.differential.exceptions import exception
from tests.differential.outcome import Kind, Outcome, equal
from tests.differential.requests import Request, requests

HARMLESS = {"binary", "some outputs", "parameters"}
OK = Outcome(Kind.OK, outputs=(sample("FP32"),))
CLIENT = Outcome(Kind.CLIENT_ERROR, "no")
UNREAD = Outcome(Kind.SERVER_ERROR, "500: Unable to parse 'shape'")


def request(*labels: str, transport: Transport = Transport.REST) -> Request:
    return Request(0, transport, labels)


def test_one_seed_gives_the_same_requests_each_time() -> None:
    assert [str(one) for one in requests(3, 50)] == [str(one) for one in requests(3, 50)]
    assert [str(one) for one in requests(3, 50)] != [str(one) for one in requests(4, 50)]


def test_requests_are_of_every_kind() -> None:
    made = list(requests(1, 3000))
    labels = {label for one in made for label in one.labels}

    assert set(REST_DAMAGES) | set(MESSAGE_DAMAGES) | HARMLESS <= labels
    assert {one.transport for one in made} == set(Transport)
    assert 500 < sum(set(one.labels) <= HARMLESS for one in made) < 2500


def test_a_request_without_damage_holds_what_its_shapes_say() -> None:
    for one in requests(2, 500):
        if one.transport is Transport.REST and set(one.labels) <= HARMLESS - {"binary"}:
            for tensor in json.loads(one.body)["inputs"]:
                count = 1
                for size in tensor["shape"]:
                    count *= size
                assert len(tensor["data"]) == count, str(one)


def test_outcomes_are_equal_whatever_the_order_of_outputs_and_the_words_of_errors() -> None:
    other = Tensor("B", "INT8", (1,), [1])

    assert equal(
        Outcome(Kind.OK, outputs=(sample("FP32"), other)),
        Outcome(Kind.OK, outputs=(other, sample("FP32"))),
    )
    assert equal(CLIENT, Outcome(Kind.CLIENT_ERROR, "another word"))
    assert not equal(OK, Outcome(Kind.OK, outputs=(sample("FP32", "B"),)))
    assert not equal(
        OK, Outcome(Kind.OK, outputs=(Tensor("INPUT0", "FP32", (3, 2), sample("FP32").items),))
    )
    assert not equal(OK, CLIENT)


@pytest.mark.parametrize(
    ("sent", "triton", "ours", "explained"),
    [
        (request("too few items"), UNREAD, CLIENT, True),
        (request(), UNREAD, CLIENT, False),  # a valid request must not be refused
        (request("too few items", transport=Transport.GRPC), UNREAD, CLIENT, False),
        (
            request("too few items"),
            CLIENT,
            UNREAD,
            False,
        ),  # nor may ours be the one that blames itself
        (request("too few items"), CLIENT, OK, False),
        (request("overflow"), OK, CLIENT, True),
        (request("overflow"), CLIENT, OK, False),
        (request("raw extra", transport=Transport.GRPC), OK, CLIENT, True),
        (request("raw missing", transport=Transport.GRPC), OK, CLIENT, False),
    ],
)
def test_only_known_differences_are_explained(
    sent: Request, triton: Outcome, ours: Outcome, explained: bool
) -> None:
    assert (exception(sent, triton, ours) is not None) == explained


def test_the_page_counts_and_shows_what_is_not_explained() -> None:
    found = Comparison()
    found.add(request(), OK, OK)
    found.add(request("overflow"), OK, CLIENT)
    found.add(request("odd"), OK, CLIENT)

    page = found.markdown(7)

    assert "3 requests from seed 7" in page
    assert "| both: ok | 1 |" in page
    assert "another number; ours refuses it | 1 |" in page
    assert "| **differ otherwise** | 1 |" in page
    assert "- `#0 rest [odd]" in page
