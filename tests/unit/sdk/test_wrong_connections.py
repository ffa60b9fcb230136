"""A wrong token, no token and the other API's port are each told in a sentence that says what to
give instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stellwerk.client import connect, connect_async, errors
from tests.unit.sdk.fake_platform import TOKEN, FakePlatform, serve_grpc, serve_http

OPENERS: list[Callable[..., Any]] = [connect, connect_async]


async def failure(open_client: Callable[..., Any], url: str, token: str | None) -> Any:
    """The error of one call, with the token that is given."""
    with pytest.raises(errors.ServiceError) as caught:
        if open_client is connect:
            with connect(url, token, timeout=10) as client:
                client.runtimes()
        else:
            async with connect_async(url, token, timeout=10) as client:
                await client.runtimes()
    return caught.value


@pytest.mark.parametrize("open_client", OPENERS)
@pytest.mark.parametrize("serve", [serve_http, serve_grpc])
async def test_a_refused_token_is_told_with_the_place_it_was_found_in(
    open_client: Callable[..., Any], serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(FakePlatform()) as url:
        given = await failure(open_client, url, "wrong")
        monkeypatch.setenv("STELLWERK_TOKEN", "wrong")
        found = await failure(open_client, url, None)

    assert isinstance(given, errors.Unauthenticated) and len(given.request_id) == 32
    assert given.message == (
        "the platform refuses the token from the argument token=: a valid bearer token is needed"
    )
    assert "the token from the variable STELLWERK_TOKEN: " in found.message


@pytest.mark.parametrize("open_client", OPENERS)
@pytest.mark.parametrize("serve", [serve_http, serve_grpc])
async def test_without_a_token_the_caller_is_told_how_to_give_one(
    open_client: Callable[..., Any], serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("STELLWERK_TOKEN", "STELLWERK_TOKEN_FILE"):
        monkeypatch.delenv(variable, raising=False)

    with serve(FakePlatform()) as url:
        error = await failure(open_client, url, None)

    assert error.message == (
        "no token was given; give token=, STELLWERK_TOKEN or STELLWERK_TOKEN_FILE; without url= the"
        " platform on this machine is found together with its token"
    )


@pytest.mark.parametrize("open_client", OPENERS)
async def test_the_port_of_the_other_api_is_recognised(open_client: Callable[..., Any]) -> None:
    platform = FakePlatform()
    with serve_http(platform) as http, serve_grpc(platform) as grpc:
        rest_address, grpc_address = http.partition("//")[2], grpc.partition("//")[2]

        over_http = await failure(open_client, f"http://{grpc_address}", TOKEN)
        over_grpc = await failure(open_client, f"grpc://{rest_address}", TOKEN)

    assert over_http.message == (
        f"http://{grpc_address} does not speak HTTP/1.1; if it is the port of the gRPC API, give"
        f" grpc://{grpc_address}"
    )
    assert over_grpc.message == (
        f"{rest_address} does not speak gRPC; if it is the port of the REST API, give"
        f" http://{rest_address}"
    )
