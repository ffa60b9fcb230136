"""Work that takes as long as its caller says and cannot be joined: what overload and timeouts are
measured with.

A call sleeps, as one that waits for an accelerator or that runs outside the interpreter does. So
the model's capacity is known, calls at once ÷ seconds of a call, it is the same for every system,
and the load generator takes none of it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from sklearn.base import BaseEstimator

from benchmarks.measurement import RestCall
from benchmarks.ours import Input, Stellwerk
from benchmarks.triton import start_triton, write_model
from benchmarks.work import infer_body

MODEL = "sleeper"
# One call at a time for each core of the machine of the results; a runtime of ours has a slot per
# core anyway.
AT_ONCE = 2

_PYTHON = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            X = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            time.sleep(float(X[0, 0]))
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("predict", X)]))
        return answers
"""
# The batcher is there for its queue policy; it joins nothing. A request that waited longer than its
# timeout is refused.
_CONFIG = """
max_batch_size: 1
input [{ name: "X", data_type: TYPE_FP64, dims: [1] }]
output [{ name: "predict", data_type: TYPE_FP64, dims: [1] }]
dynamic_batching {
  default_queue_policy {
    timeout_action: REJECT
    default_timeout_microseconds: 60000000
    allow_timeout_override: true
    max_queue_size: %d
  }
}
"""


def _sleeper() -> Any:
    """Returns a model that sleeps for the seconds in each input row and answers them.

    Its class is defined here, so that a pickle carries it.
    """

    class Sleeper(BaseEstimator):  # type: ignore[misc]
        n_features_in_ = 1

        def predict(self, X: Any) -> Any:
            time.sleep(float(np.asarray(X)[0, 0]))
            return np.asarray(X, float)

    return Sleeper()


def _says(values: list[float]) -> Any:
    """Tells whether an answer holds these values."""

    def right(answer: bytes) -> bool:
        outputs = orjson.loads(answer).get("outputs") or [{}]
        return bool(np.array_equal(np.ravel(outputs[0].get("data", [])), values))

    return right


class OurSleeper:
    """Stellwerk with the model. The deadline travels in a header."""

    name = "Stellwerk"

    def __init__(self, broker: str) -> None:
        self._platform = Stellwerk(broker, env={"STELLWERK_ALLOW_UNSAFE_FORMATS": "true"})
        self.versions: Mapping[str, str] = self._platform.versions
        try:
            self._input = self._store()
        except BaseException:
            self.stop()
            raise

    def _store(self) -> Input:
        self._platform.client.models.put(
            _sleeper(),
            MODEL,
            format="pickle",
            unsafe=True,
            example=np.array([[0.0]]),
            options={"batching": "off"},
        )
        return self._platform.input_of(MODEL)

    def call(self, seconds: float, deadline: float, rows: int = 1) -> RestCall:
        """A call of this length, to be answered or refused before the deadline, both in seconds.

        `rows` rows make the tensors that travel larger, not the call longer.
        """
        values = [[seconds]] * rows
        plain = self._platform.rest(
            MODEL, infer_body(self._input.name, self._input.datatype, values)
        )
        return RestCall(
            plain.url,
            plain.body,
            {**plain.headers, "X-Request-Timeout": f"{deadline:g}"},
            _says([seconds] * rows),
        )

    def parts(self) -> Mapping[str, Sequence[int]]:
        """Its processes."""
        return self._platform.parts()

    def stop(self) -> None:
        self._platform.stop()


class TritonSleeper:
    """Triton with the model. The deadline travels as the request's `timeout`, which bounds its wait
    in the queue.

    `queue_size` bounds the queue; 0 is Triton's own default, no bound.
    """

    def __init__(self, queue_size: int = 0) -> None:
        self.name = f"Triton, queue of {queue_size}" if queue_size else "Triton"
        self._directory = tempfile.TemporaryDirectory(prefix="triton-bench-")
        folder = Path(self._directory.name)
        write_model(folder / "models", MODEL, _CONFIG % queue_size, _PYTHON, AT_ONCE)
        self._server = start_triton(folder / "models", folder / "log")
        self.versions: Mapping[str, str] = {
            "tritonserver": self._server.version,
            "instances": str(AT_ONCE),
        }

    def call(self, seconds: float, deadline: float) -> RestCall:
        """A call of this length that may wait until the deadline, both in seconds."""
        body = orjson.loads(infer_body("X", "FP64", [[seconds]]))
        body["parameters"] = {"timeout": round(deadline * 1e6)}
        url = f"{self._server.http}/v2/models/{MODEL}/infer"
        return RestCall(
            url, orjson.dumps(body), {"Content-Type": "application/json"}, _says([seconds])
        )

    def parts(self) -> Mapping[str, Sequence[int]]:
        """The server, and the processes of its models."""
        return self._server.parts()

    def stop(self) -> None:
        self._server.stop()
        self._directory.cleanup()
