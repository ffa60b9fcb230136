"""The HTTP door of a running gateway, over a fake platform."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from stellwerk.controlplane.v1 import identity_service_pb2 as identity
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.wire import errors
from tests.fakes.upstreams import API_KEY
from tests.integration.gateway import Gateway, running, wait_for


async def test_a_call_goes_through_with_the_callers_token_and_request_id(gateway: Gateway) -> None:
    gateway.upstreams.answer(
        "GetBucket", repository.GetBucketResponse(bucket=repository.Bucket(name="buckets/b"))
    )
    headers = {
        **gateway.bearer(),
        "x-request-id": "abc-1",
        "cookie": "secret",
        "x-principal": "principals/root",
    }

    answer = await gateway.http.get("/v1/buckets/b", headers=headers)

    call = gateway.upstreams.last("GetBucket")
    assert answer.status_code == 200
    assert answer.json()["bucket"]["name"] == "buckets/b"
    assert answer.headers["x-request-id"] == "abc-1"
    assert call.request.name == "buckets/b"
    assert call.metadata["authorization"] == headers["authorization"]
    assert call.metadata["x-request-id"] == "abc-1"
    assert not {"cookie", "x-principal"} & set(call.metadata)
    assert 25 < (call.time_remaining or 0) < 30


async def test_a_bad_request_id_is_replaced(gateway: Gateway) -> None:
    for bad in ("x" * 200, "a b", b"a\x01b".decode("latin-1").replace("\x01", "\t") + ";"):
        answer = await gateway.http.get("/v2/health/live", headers={"x-request-id": bad})

        assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer x y", "Basic abc", "Bearer eyJ.eyJ.x", "Bearer swk_no"]
)
async def test_without_a_valid_credential_nothing_is_called(
    gateway: Gateway, header: str | None
) -> None:
    answer = await gateway.http.get(
        "/v1/buckets", headers={} if header is None else {"authorization": header}
    )

    body = answer.json()
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert (body["code"], body["status"], body["details"][0]["reason"]) == (
        16,
        "UNAUTHENTICATED",
        "UNAUTHENTICATED",
    )
    assert body["details"][0]["domain"] == "stellwerk"
    assert not gateway.upstreams.calls


async def test_a_refusal_at_the_door_is_audited(gateway: Gateway) -> None:
    await gateway.http.get("/v1/runtimes", headers={"authorization": "Bearer nonsense"})

    await wait_for(
        lambda: any(r.method.endswith("/ListRuntimes") for r in gateway.upstreams.records)
    )


async def test_an_expired_token_is_refused(gateway: Gateway) -> None:
    assert (
        await gateway.http.get("/v1/buckets", headers=gateway.bearer(exp=1000))
    ).status_code == 401


async def test_an_api_key_is_exchanged_once(gateway: Gateway) -> None:
    before = gateway.upstreams.exchanges
    headers = {"authorization": f"Bearer {API_KEY}"}

    answers = await asyncio.gather(
        *(gateway.http.get("/v1/buckets", headers=headers) for _ in range(10))
    )

    assert {answer.status_code for answer in answers} == {200}
    assert gateway.upstreams.exchanges <= before + 1
    assert all(API_KEY not in str(call.metadata) for call in gateway.upstreams.calls)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/health/live",
        "/v2/health/ready",
        "/.well-known/jwks.json",
        "/openapi.json",
        "/v1/openapi.json",
        "/docs",
    ],
)
async def test_open_paths_need_no_token(gateway: Gateway, path: str) -> None:
    answer = await gateway.http.get(path)
    head = await gateway.http.head(path)

    assert answer.status_code == head.status_code == 200
    assert head.content == b""


async def test_a_key_is_exchanged_without_a_token(gateway: Gateway) -> None:
    answer = await gateway.http.post("/v1/tokens:issue", json={"apiKey": API_KEY})

    assert answer.status_code == 200
    assert answer.json()["tokenType"] == "Bearer"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidInput("x", field="f"), 400),
        (errors.NotPermitted("x"), 403),
        (errors.ModelNotFound("x"), 404),
        (errors.AlreadyExists("x"), 409),
        (errors.Conflict("x"), 409),
        (errors.NotReady("x"), 400),
        (errors.TooLarge("x"), 413),
        (errors.Overloaded("x"), 429),
        (errors.NoRuntimeAvailable("x"), 503),
        (errors.DeadlinePassed("x"), 504),
        (errors.Corrupt("x"), 500),
        (errors.NotImplementedHere("x"), 501),
    ],
)
async def test_errors_of_upstreams_keep_their_reason(
    gateway: Gateway, error: errors.ServiceError, status: int
) -> None:
    gateway.upstreams.answer("GetModel", error)

    answer = await gateway.http.get("/v1/buckets/b/models/m", headers=gateway.bearer())

    info = answer.json()["details"][0]
    assert answer.status_code == status
    assert info["reason"] == error.reason
    assert info["metadata"] == error.metadata
    assert ("retry-after" in answer.headers) == (status in (429, 503))


async def test_deadlines_are_passed_on_capped_and_checked(gateway: Gateway) -> None:
    async def ask(**headers: str) -> httpx.Response:
        return await gateway.http.get("/v1/roles", headers={**gateway.bearer(), **headers})

    await ask(**{"x-request-timeout": "1.5"})
    assert (gateway.upstreams.last("ListRoles").time_remaining or 9) < 1.5
    await ask(**{"grpc-timeout": "2S"})
    assert (gateway.upstreams.last("ListRoles").time_remaining or 9) < 2
    await ask(**{"grpc-timeout": "99999999H"})
    assert (gateway.upstreams.last("ListRoles").time_remaining or 999) < 300.5
    for bad in (
        {"grpc-timeout": "0n"},
        {"grpc-timeout": "-1S"},
        {"x-request-timeout": "nan"},
        {"grpc-timeout": "1"},
    ):
        assert (await ask(**bad)).status_code == 400


async def test_a_slow_upstream_is_a_gateway_timeout(gateway: Gateway) -> None:
    async def sleep(_request: Any, _context: Any) -> None:
        await asyncio.Event().wait()

    gateway.upstreams.answer("ListRoles", sleep)

    answer = await gateway.http.get(
        "/v1/roles", headers={**gateway.bearer(), "x-request-timeout": "0.2"}
    )

    assert answer.status_code == 504


async def test_a_caller_that_goes_away_cancels_its_call(gateway: Gateway) -> None:
    arrived = asyncio.Event()

    async def wait(_request: Any, _context: Any) -> None:
        arrived.set()
        await asyncio.Event().wait()

    gateway.upstreams.answer("ListRoles", wait)
    gateway.upstreams.cancelled.clear()
    asking = asyncio.create_task(gateway.http.get("/v1/roles", headers=gateway.bearer()))
    await asyncio.wait_for(arrived.wait(), 5)

    asking.cancel()

    await wait_for(lambda: gateway.upstreams.cancelled)


async def test_what_the_gateway_says_of_itself(gateway: Gateway) -> None:
    async def asked(path: str, field: str) -> Any:
        return (await gateway.http.get(path, headers=gateway.bearer())).json()[field]

    rpc = "/stellwerk.repository.v1.RepositoryService/ListBuckets"
    assert {
        "httpMethod": "GET",
        "template": "/v1/buckets",
        "rpc": rpc,
        "permission": "authenticated",
    } in await asked("/v1/routes", "routes")
    upstreams = await asked("/v1/upstreams", "upstreams")
    assert {u["service"] for u in upstreams} == {"gateway", "router", "repository", "controlplane"}
    # One that answers its health check late is reported as not serving: true, but not for long.
    async with asyncio.timeout(10):
        while not all(u["serving"] for u in upstreams):
            upstreams = await asked("/v1/upstreams", "upstreams")


async def test_a_caller_without_the_permission_learns_nothing_of_upstreams(
    gateway: Gateway,
) -> None:
    token = gateway.upstreams.issuer.token("principals/bob", ("caller", "default"))

    answer = await gateway.http.get("/v1/upstreams", headers={"authorization": f"Bearer {token}"})

    assert answer.status_code == 403


async def test_an_absent_upstream_is_unavailable_in_our_words(gateway: Gateway) -> None:
    async with running() as other:
        await other.http.get("/v1/buckets", headers=other.bearer())
        headers = other.bearer()
        await other.upstreams.server.stop(None)

        answer = await other.http.get("/v1/buckets", headers={**headers, "x-request-timeout": "5"})
        ready = await other.http.get("/v2/health/ready")

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert "127.0.0.1" not in answer.text
    assert ready.status_code == 503
    assert ready.json()["ready"] is False


async def test_what_is_in_hand_is_finished_when_the_gateway_stops() -> None:
    async with running() as other:
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def wait(_request: Any, _context: Any) -> identity.ListRolesResponse:
            arrived.set()
            await go_on.wait()
            return identity.ListRolesResponse()

        other.upstreams.answer("ListRoles", wait)
        asking = asyncio.create_task(other.http.get("/v1/roles", headers=other.bearer()))
        await arrived.wait()

        other.process.stop()
        await wait_for(lambda: other.process.readiness.reasons())
        go_on.set()

        assert (await asking).status_code == 200
