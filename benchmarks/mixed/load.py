"""Stores the models and registers the tenants of the mixed load on a platform, and sends it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from benchmarks.figures import Load
from benchmarks.measurement import Measurement, WrongAnswer
from benchmarks.mixed.models import MixedModel, mixed_models
from benchmarks.mixed.requests import MixedRequest, combinations, packed
from benchmarks.ours import Named
from benchmarks.rest_load import run_wrk

SCRIPT = Path(__file__).parent / "mixed.lua"
# Each tenant has a role of its own; all four may predict.
ROLES = {"tenant-1": "caller", "tenant-2": "editor", "tenant-3": "publisher", "tenant-4": "admin"}


def prepare(system: Named, connections: int) -> Load:
    """Stores the models, registers the tenants and returns the load on this many connections."""
    models = mixed_models()
    client = system.platform.client
    for model in models:
        client.models.put(model.model, model.name)
    keys = {tenant: _register(system, tenant, role) for tenant, role in ROLES.items()}
    return lambda seconds: _measure(system, models, keys, connections, seconds)


def _register(system: Named, tenant: str, role: str) -> str:
    """Registers a tenant with a role and returns the secret of its API key."""
    access = system.platform.client.access
    access.create_principal(tenant, [role])
    return access.create_key(tenant).secret


def _measure(
    system: Named,
    models: list[MixedModel],
    keys: dict[str, str],
    connections: int,
    seconds: float,
) -> Measurement:
    # New tokens each time: a token lives for 15 minutes, a run takes longer.
    access = system.platform.client.access
    tokens = {tenant: access.issue_token(key).access_token for tenant, key in keys.items()}
    url = system.platform.ready["http"]
    requests = list(combinations(urlsplit(url).netloc, models, tokens))
    _check(system.name, url, requests)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "requests"
        file.write_bytes(packed(requests))
        return run_wrk(system, url, SCRIPT, [file], connections, seconds)


def _check(name: str, url: str, requests: list[MixedRequest]) -> None:
    """Sends each request once; raises WrongAnswer unless its id and its values come back."""
    with httpx.Client(timeout=60) as client:
        for number, one in enumerate(requests):
            head, _, body = one.with_id(number).partition(b"\r\n\r\n")
            lines = [line.partition(": ") for line in head.decode().splitlines()[1:]]
            headers = {name: value for name, _, value in lines}
            path = head.split()[1].decode()
            answer = client.post(f"{url}{path}", content=body, headers=headers)
            if answer.status_code != 200 or not one.is_right(answer.content, number):
                raise WrongAnswer(
                    f"{name} answered {one.model} for {one.tenant} with {answer.status_code}:"
                    f" {answer.text[:500]}"
                )
