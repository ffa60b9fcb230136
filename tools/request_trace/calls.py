"""The two requests that can be traced, and the windows of time in which they are recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import httpx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from stellwerk.client import connect
from tools.request_trace.events import Recording
from tools.request_trace.stack import Running, Switch

NAME = "traced"
_ROW = {"name": "X", "datatype": "FP64", "shape": [1, 4], "data": [5.1, 3.5, 1.4, 0.2]}
# Requests before the recordings: caches are filled, and the model's first calls are over.
_WARM_UP = 10
_REST_SECONDS = 2.0
_PAUSE_SECONDS = 0.037
# Seconds of a recording that are left when the answer is there, at least: on a busy machine the
# platform may not have logged and acknowledged the request before.
_AFTER_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """Seconds of a recording, and how many recordings are made with a request and without one."""

    seconds: float
    recordings: int


# An infer takes 10 to 30 ms under the recorder, an upload 50 to 90. The shorter a recording, the
# less of the platform's own work it has: what comes twice a second is by chance in 12 recordings
# of 0.15 s with a probability below 1e-6.
PLANS = {"infer": Plan(0.1, 12), "upload": Plan(0.15, 12)}


def record(kind: str, running: Running, switch: Switch) -> list[Recording]:
    """Warms the request up, then records windows with one request and windows without, in turn."""
    X, y = load_iris(return_X_y=True)  # type: ignore[no-untyped-call]
    model = LogisticRegression(max_iter=1000).fit(X, y)  # type: ignore[no-untyped-call]
    with connect(running.http, running.token) as client, _http(running) as http:
        upload = partial(client.models.put, model, NAME, example=X[:2])
        upload()
        send = upload if kind == "upload" else partial(_infer, http)
        for _ in range(_WARM_UP):
            send()
        # What the warm-up left to do in the background is done by then.
        time.sleep(_REST_SECONDS)
        send()
        return _windows(PLANS[kind], send, switch)


def _windows(plan: Plan, send: Callable[[], object], switch: Switch) -> list[Recording]:
    made = []
    for turn in range(plan.recordings):
        began = time.monotonic()
        made.append(_window(2 * turn + 1, plan.seconds, switch, send))
        # On a busy machine a request may take longer than was planned.
        seconds = max(plan.seconds, time.monotonic() - began)
        # Pauses differ, so that no timer of the platform keeps step with the recordings.
        time.sleep(_PAUSE_SECONDS * (3 + turn))
        made.append(_window(2 * turn + 2, seconds, switch, None))
        time.sleep(_PAUSE_SECONDS * (3 + turn))
    return made


def _window(
    number: int, seconds: float, switch: Switch, send: Callable[[], object] | None
) -> Recording:
    with switch.recording(number):
        began = answered = time.monotonic_ns()
        if send is not None:
            send()
            answered = time.monotonic_ns()
        left = seconds - (time.monotonic_ns() - began) / 1e9
        time.sleep(max(left, _AFTER_SECONDS if send is not None else 0.0))
    return Recording(number) if send is None else Recording(number, began, answered)


def _http(running: Running) -> httpx.Client:
    headers = {"authorization": f"Bearer {running.token}"}
    return httpx.Client(base_url=running.http, headers=headers, trust_env=False, timeout=60.0)


def _infer(http: httpx.Client) -> None:
    answer = http.post(f"/v2/models/{NAME}/infer", json={"inputs": [_ROW]})
    if answer.is_error:
        raise RuntimeError(f"the infer was answered with {answer.status_code}: {answer.text}")
