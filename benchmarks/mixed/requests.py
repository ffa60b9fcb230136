"""The requests of the mixed load as bytes, cut in two where the id of each goes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from benchmarks.mixed.models import MixedModel

# Digits of a request id; fixed, because Content-Length stands before the id.
ID_DIGITS = 12


@dataclass(frozen=True, slots=True)
class MixedRequest:
    """One combination of model, tenant and form. `before` and `behind` enclose the request id."""

    model: str
    tenant: str
    before: bytes
    behind: bytes
    right: np.ndarray

    def with_id(self, number: int) -> bytes:
        """Returns the whole request as sent over HTTP/1.1."""
        return self.before + _id(number) + self.behind

    def is_right(self, body: bytes, number: int) -> bool:
        """Returns whether an answer has this request's id and the right values."""
        answer = orjson.loads(body)
        outputs = answer.get("outputs") or [{}]
        values = np.ravel(outputs[0].get("data", []))
        return answer.get("id") == _id(number).decode() and bool(
            values.shape == self.right.shape and np.allclose(values, self.right, rtol=1e-6)
        )


def combinations(
    host: str, models: Sequence[MixedModel], tokens: Mapping[str, str]
) -> Iterator[MixedRequest]:
    """Yields a request for each model, tenant and form; `tokens` holds a token for each tenant."""
    for m, model in enumerate(models):
        for t, (tenant, token) in enumerate(tokens.items()):
            for f, shape in enumerate(model.shapes):
                yield _request(host, model, tenant, token, model.rows(shape, (m, t, f)))


def _request(
    host: str, model: MixedModel, tenant: str, token: str, rows: np.ndarray
) -> MixedRequest:
    tensor = {
        "name": model.input,
        "datatype": model.datatype,
        "shape": rows.shape,
        "data": rows.ravel().tolist(),
    }
    # As clients write a request: the id first, then the tensors.
    start, end = b'{"id":"', b'","inputs":[' + orjson.dumps(tensor) + b"]}"
    head = [
        f"POST /v2/models/{model.name}/infer HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Authorization: Bearer {token}",
        f"Content-Length: {len(start) + ID_DIGITS + len(end)}",
    ]
    before = "\r\n".join(head).encode() + b"\r\n\r\n" + start
    return MixedRequest(model.name, tenant, before, end, np.ravel(model.answer(rows)))


def _id(number: int) -> bytes:
    return b"%0*d" % (ID_DIGITS, number)


def packed(requests: Sequence[MixedRequest]) -> bytes:
    """Returns the requests as `mixed.lua` reads them: a line with two lengths, then both halves."""
    return b"".join(
        b"%d %d\n%b%b" % (len(one.before), len(one.behind), one.before, one.behind)
        for one in requests
    )
