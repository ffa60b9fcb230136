"""Loads and unloads large models in a runtime of a platform, and reads its memory from outside.

Everything goes through public doors: `stellwerk up` starts the platform, the SDK stores and calls
the models, and the protocol's model repository extension loads and unloads them.

The baseline is the runtime after it has loaded, called and unloaded a model of a few bytes of the
same kind: the libraries are in memory then, and every buffer and thread that a first model brings.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from benchmarks.ours import Stellwerk
from soak.large_models import KINDS, MB, Sample

# Calls of a model that has just been loaded: more than the runtime's two slots.
CALLS = 4
# Seconds without a fall of more than a megabyte after which memory counts as settled.
_SETTLED_SECONDS = 0.5
# Seconds that loading or unloading a model of 200 MB may take on a busy machine.
_PATIENCE = 120.0


@dataclass(slots=True)
class Memory:
    """Resident bytes of the runtime process."""

    # Before any library of a model format was loaded.
    bare: int = 0
    # With libraries, without a model.
    baseline: int = 0
    # With a model, and after it was unloaded, of each round.
    loaded: list[int] = field(default_factory=list)
    unloaded: list[int] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def growth(self) -> float:
        """The share of the baseline that the last round left behind."""
        return self.unloaded[-1] / self.baseline - 1


class Runtime:
    """The one runtime of a platform, reached as its users and its operator reach it."""

    def __init__(self, platform: Stellwerk) -> None:
        self._platform = platform
        self._http = httpx.Client(base_url=platform.ready["http"], timeout=_PATIENCE)
        runtimes = [name for name in platform.ready["pids"] if name.startswith("runtime")]
        self._process = psutil.Process(platform.ready["pids"][runtimes[0]])

    def store(self, sample: Sample) -> None:
        """Stores the sample as the only version of a model of its name."""
        self._platform.client.models.put(
            sample.path,
            sample.name,
            format=sample.format,
            signature=sample.signature,
            options=sample.options,
        )

    def load(self, sample: Sample) -> None:
        """Has the model loaded. Raises httpx.HTTPStatusError if the runtime cannot."""
        self._post(f"/v2/repository/models/{sample.name}/load")

    def unload(self, sample: Sample) -> None:
        """Has the model let go; returns when the runtime does not have it any more."""
        self._post(f"/v2/repository/models/{sample.name}/unload")

    def call(self, sample: Sample, calls: int = CALLS) -> None:
        """Calls the model `calls` times, one call after the other."""
        model = self._platform.client.runtime.model(sample.name)
        for _ in range(calls):
            model.predict(sample.row)

    def settled(self) -> int:
        """Returns the resident bytes once they have stopped falling.

        A runtime lets go of models in the background.
        """
        lowest = self.rss()
        since = time.monotonic()
        while time.monotonic() - since < _SETTLED_SECONDS:
            time.sleep(0.02)
            if (now := self.rss()) < lowest - MB:
                lowest = now
                since = time.monotonic()
        return self.rss()

    def rss(self) -> int:
        """Returns the resident bytes of the runtime process now."""
        return int(self._process.memory_info().rss)

    def _post(self, path: str) -> None:
        self._http.post(path, json={}, headers=self._platform.authorization()).raise_for_status()


@contextmanager
def runtime(memory_bytes: int = 0) -> Iterator[Runtime]:
    """Starts a platform whose one runtime has two slots and an empty cache; stops it afterwards.

    `memory_bytes` bounds what its models may take together; 0 leaves it at half the machine's.
    """
    settings = {"STELLWERK_SLOTS": "2", "STELLWERK_DEVICES": "cpu"}
    if memory_bytes:
        settings["STELLWERK_MEMORY_BYTES"] = str(memory_bytes)
    platform = Stellwerk(env=settings)
    try:
        yield Runtime(platform)
    finally:
        platform.stop()


def loads_and_unloads(under_test: Runtime, kind: str, rounds: int, size: int) -> Memory:
    """Loads, calls and unloads one model of `size` bytes `rounds` times."""
    memory = Memory()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        tiny = KINDS[kind](Path(name), f"tiny-{kind}", 0)
        large = KINDS[kind](Path(name), f"large-{kind}", size)
        memory.bare = under_test.settled()
        under_test.store(tiny)
        under_test.store(large)
        _round(under_test, tiny)
        memory.baseline = under_test.settled()
        for _ in range(rounds):
            memory.loaded.append(_round(under_test, large))
            memory.unloaded.append(under_test.settled())
    memory.seconds = time.monotonic() - started
    return memory


def _round(under_test: Runtime, sample: Sample) -> int:
    """Loads, calls and unloads the model; returns the resident bytes while it was loaded."""
    under_test.load(sample)
    under_test.call(sample)
    loaded = under_test.rss()
    under_test.unload(sample)
    return loaded


def evictions(under_test: Runtime, kind: str, rounds: int, size: int) -> Memory:
    """Calls two models of `size` bytes in turns; each call pushes the other model out.

    The runtime must have memory for one of them and not for both: `runtime(size * 3 // 2)`.
    """
    memory = Memory()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        tiny = KINDS[kind](Path(name), f"tiny-{kind}", 0)
        pair = [
            KINDS[kind](Path(name), f"{letter}-{kind}", size + number)
            for number, letter in enumerate("ab")
        ]
        memory.bare = under_test.settled()
        for sample in (tiny, *pair):
            under_test.store(sample)
        _round(under_test, tiny)
        memory.baseline = under_test.settled()
        for number in range(rounds):
            under_test.call(pair[number % 2], calls=1)
            memory.loaded.append(under_test.settled())
        memory.unloaded = memory.loaded
    memory.seconds = time.monotonic() - started
    return memory
