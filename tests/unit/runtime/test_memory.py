"""Memory that was freed goes back to the system, and growth is said only of what grew alone."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from services.runtime.models.memory import Meter, give_back, release, resident_bytes

MB = 1 << 20


@pytest.fixture
def without_collections() -> Iterator[None]:
    """No collection but those that the code under test asks for."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def said_by(script: str) -> str:
    """What a Python process of its own prints."""
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout


class Holder:
    """Holds memory, and itself if it is told to."""

    def __init__(self, size: int, *, cyclic: bool = False) -> None:
        self.data: object = np.ones(size, dtype=np.uint8)
        self.me = self if cyclic else None


def test_small_pieces_of_freed_memory_go_back() -> None:
    give_back()
    before = resident_bytes()
    # Below the size from which the allocator maps each piece for itself, and never joined to one
    # block.
    pieces = [np.ones(64 * 1024, dtype=np.uint8) for _ in range(2000)]
    kept = pieces[::50]
    del pieces
    held = resident_bytes() - before

    give_back()

    assert len(kept) == 40
    assert resident_bytes() - before < 0.2 * 125 * MB <= 0.2 * max(held, 125 * MB)


def test_pieces_that_threads_allocated_go_back_where_there_is_one_heap() -> None:
    script = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from services.chassis import allocator
from services.runtime.models import memory

allocator.keep_memory_of_messages()
allocator.use_one_heap()
with ThreadPoolExecutor(1) as loading, ThreadPoolExecutor(1) as leaving:
    allocate = lambda: [np.ones(2 << 20, dtype=np.uint8) for _ in range(20)]
    before = memory.resident_bytes()
    for _ in range(5):
        leaving.submit(loading.submit(allocate).result().clear).result()
        leaving.submit(memory.give_back).result()
    print(memory.resident_bytes() - before)
"""

    assert int(said_by(script)) < 4 * MB


@pytest.mark.parametrize("cyclic", [False, True])
def test_what_is_released_is_gone_even_if_it_holds_itself(
    without_collections: None, cyclic: bool
) -> None:
    before = resident_bytes()
    holders = [Holder(64 * MB, cyclic=cyclic)]
    assert resident_bytes() - before > 60 * MB

    release(holders.clear, 64 * MB)

    assert resident_bytes() - before < 8 * MB


def test_little_is_not_worth_a_collection(without_collections: None) -> None:
    class Watched:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            gone.append(True)

    gone: list[bool] = []
    holders = [Watched()]

    release(holders.clear, MB)

    assert gone == []


def test_growth_is_measured_without_what_was_needed_for_a_moment() -> None:
    def work() -> object:
        moment = np.ones(100 * MB, dtype=np.uint8)
        return moment[: 30 * MB].copy()

    kept, grown = Meter().measure(work)

    assert kept is not None
    assert grown == pytest.approx(30 * MB, abs=4 * MB)


def test_growth_has_no_owner_while_other_work_is_measured() -> None:
    meter = Meter()
    inside, leave = threading.Event(), threading.Event()
    growths: list[int | None] = []

    def first() -> None:
        inside.set()
        assert leave.wait(10)

    thread = threading.Thread(target=lambda: growths.append(meter.measure(first)[1]))
    thread.start()
    assert inside.wait(10)
    _, second = meter.measure(lambda: None)
    leave.set()
    thread.join(10)
    _, third = meter.measure(lambda: None)

    assert (growths, second) == ([None], None)
    assert third is not None


def test_work_that_fails_is_over() -> None:
    meter = Meter()
    with pytest.raises(ZeroDivisionError):
        meter.measure(lambda: 1 // 0)

    assert meter.measure(lambda: "done")[1] is not None


def test_collections_pass_over_what_was_there_before() -> None:
    script = (
        "import gc, services.runtime.models.memory as memory\n"
        "before = len(gc.get_objects())\n"
        "memory.spare_libraries()\n"
        "new = [[]]\n"
        "new.append(new)\n"
        "del new\n"
        "print(before, len(gc.get_objects()), gc.collect())\n"
    )

    before, looked_at, found = map(int, said_by(script).split())

    assert before > 10_000 and looked_at < 1_000
    assert found >= 1
