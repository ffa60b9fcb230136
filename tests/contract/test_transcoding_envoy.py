"""Our transcoder and Envoy's, over the same generated requests: equal messages, or both refuse."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from google.protobuf import message_factory
from google.protobuf.message import DecodeError, Message

from services.api_gateway.routing import exposed_services
from services.api_gateway.routing.routes import RouteTable, routes_of
from services.api_gateway.transcoding import messages
from services.api_gateway.transcoding.parameters import query_pairs
from stellwerk.wire.errors import ServiceError
from tests.contract.envoy import Recorder, envoy
from tests.contract.transcoding_cases import Case, cases

# The Open Inference Protocol has a JSON of its own, so Envoy's says nothing about ours.
SERVICES = [
    service
    for service in exposed_services.SERVED_BY
    if service is not exposed_services.INFERENCE_SERVICE
]
TABLE = RouteTable(routes_of(SERVICES))
UNARY = [r for r in TABLE.routes if not (r.rpc.client_streaming or r.rpc.server_streaming)]


Outcome = tuple[str, Message] | None


def ours(case: Case) -> Outcome:
    path, _, query = case.target.partition(b"?")
    try:
        match = TABLE.find(case.method, path)
        pairs = query_pairs(query)
        return match.route.rpc_name, messages.request_message(
            match.route, match.variables, pairs, case.body
        )
    except ServiceError:
        return None


async def envoys(case: Case, name: str, client: httpx.AsyncClient, recorder: Recorder) -> Outcome:
    headers = {"x-case": name, "content-type": "application/json"}
    request = client.build_request(case.method, "/", content=case.body, headers=headers)
    request.url = request.url.copy_with(raw_path=case.target)
    await client.send(request)
    found = recorder.requests.get(name)
    if found is None:
        return None
    rpc, data = found
    method = exposed_services.public_methods()[rpc]
    message_class: Any = message_factory.GetMessageClass(method.input_type)
    try:
        return rpc, message_class.FromString(data)
    except DecodeError:
        return None  # Envoy passes on text that is no UTF-8; every service refuses it


def intended(case: Case, mine: Outcome, theirs: Outcome) -> str:
    """Where the two differ on purpose; docs/decisions/ says why. "" for any other difference."""
    if case.kind == "unknown_field" and mine is None:
        return "an unknown field of the body is an error"
    if case.kind == "twice" and mine is None:
        return "a second value for a singular field is an error"
    if (
        case.method == "PATCH"
        and mine is not None
        and theirs is not None
        and b"mask" not in case.target.lower()
    ):
        bare: Any = type(mine[1]).FromString(mine[1].SerializeToString())
        bare.ClearField("update_mask")
        if (mine[0], bare) == theirs:
            return "PATCH fills the update mask from the body"
    return ""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def running_envoy() -> AsyncIterator[tuple[httpx.AsyncClient, Recorder]]:
    async with envoy([str(service.full_name) for service in SERVICES]) as started:
        yield started


async def test_both_deliver_equal_messages_or_both_refuse(
    running_envoy: tuple[httpx.AsyncClient, Recorder],
) -> None:
    generated = cases(UNARY, 14, seed=20)
    kinds: Counter[str] = Counter()
    on_purpose: Counter[str] = Counter()
    different: list[str] = []
    for number, case in enumerate(generated):
        mine, theirs = ours(case), await envoys(case, f"generated-{number}", *running_envoy)
        kinds[f"{case.kind}: {'refused' if mine is None else 'taken'}"] += 1
        if mine == theirs:
            continue
        if reason := intended(case, mine, theirs):
            on_purpose[reason] += 1
        else:
            different.append(
                f"{case.kind} {case.method} {case.target!r} {case.body!r}\n  ours {mine}\n  Envoy"
                f" {theirs}"
            )

    assert len(generated) >= 200
    assert not different, f"{len(different)} of {len(generated)} differ:\n" + "\n".join(
        different[:20]
    )
    # Most requests must have been right ones, and every intended difference must have been met.
    assert kinds["right: taken"] >= 200
    assert len(on_purpose) == 3


@pytest.mark.parametrize(
    ("method", "target", "same"),
    [
        ("GET", b"/v1/buckets/b%2Fc", True),
        ("GET", b"/v1/buckets/b%2fc/models/m", True),
        ("GET", b"/v1/buckets/b%3Ac", True),
        ("GET", b"/v1/buckets/b/models/m%3Aresolve", True),
        # Envoy takes a plus sign before a number.
        ("GET", b"/v1/buckets?page_size=%2B1", False),
        ("GET", b"/v1/buckets?page_token=%ff", True),
        ("GET", b"/v1/buckets?page_token=a+b", True),
        ("GET", b"/v1/buckets?page_token", True),
        ("GET", b"/v1/buckets?", True),
        ("GET", b"/v1/buckets?page_size=", True),
        ("GET", b"/v1/buckets?page_size=1.0", True),
        ("GET", b"/v1/buckets?page_size=0x1", True),
        ("GET", b"/v1/buckets?page_size=1e1", True),
        ("GET", b"/v1/buckets?page_size=99999999999", True),
        ("GET", b"/v1/buckets/b/models/m:predict", True),
        ("DELETE", b"/v1/buckets", True),
        # An empty segment names nothing here; Envoy drops slashes at the end and takes empty ids.
        ("GET", b"/v1/buckets/", False),
        ("GET", b"/v1/buckets//models", False),
        # A verb that nothing is called by belongs to the id; Envoy agrees.
        ("GET", b"/v1/buckets/b/models/m:other", True),
    ],
)
async def test_the_corners(
    method: str, target: bytes, same: bool, running_envoy: tuple[httpx.AsyncClient, Recorder]
) -> None:
    case = Case("corner", method, target, b"", UNARY[0])

    mine, theirs = ours(case), await envoys(case, f"{method} {target!r}", *running_envoy)

    assert (mine == theirs) is same, f"ours {mine}, Envoy {theirs}"
