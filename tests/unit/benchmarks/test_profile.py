"""From recorded stacks to the page: which room a stack belongs to, and how the times add up."""

from __future__ import annotations

import ctypes
import os
import platform
from collections import Counter
from typing import Any

import pytest

from benchmarks.profiling.page import OTHERS, chart_data, page, service_rows
from benchmarks.profiling.sampling import name_system_calls
from benchmarks.profiling.stacks import (
    COLLECTOR,
    EVENT_LOOP,
    MODEL,
    NATIVE_THREADS,
    NOT_SAMPLED,
    Frame,
    part_of,
    samples_by_thread,
    split,
)

LIBC = "/usr/lib/x86_64-linux-gnu/libc.so.6"
ENTRY = "/home/x/services/chassis/lifecycle/entry.py"
DOOR = "/home/x/services/api_gateway/http/door.py"
PACKAGES = "/venv/lib/python3.11/site-packages"
STANDARD = "/usr/lib/python3.11"


def _stack(*files: str) -> list[Frame]:
    return [Frame("run", ENTRY), *(Frame("f", file) for file in files)]


@pytest.mark.parametrize(
    ("files", "part"),
    [
        ((DOOR,), "http"),
        ((DOOR, f"{STANDARD}/functools.py", LIBC), "http"),
        ((DOOR, "/home/x/services/chassis/access/verifier.py"), "chassis/access"),
        ((DOOR, "/home/x/services/api_gateway/servicer.py"), "servicer"),
        ((DOOR, "/home/x/sdk/stellwerk/wire/columns.py"), "wire"),
        ((DOOR, f"{PACKAGES}/orjson/orjson.cpython-311-x86_64-linux-gnu.so"), "orjson"),
        ((DOOR, f"{PACKAGES}/google/_upb/_message.abi3.so"), "protobuf"),
        ((f"{PACKAGES}/grpc/aio/_call.py", f"{STANDARD}/asyncio/locks.py"), "asyncio"),
        (("/project/uvloop/loop.c", "/project/build/libuv-x86_64/src/unix/stream.c"), "uvloop"),
        (("/project/uvloop/loop.c", DOOR, f"{PACKAGES}/numpy/core/x.so"), "http"),
        ((DOOR, f"{PACKAGES}/sklearn/base.py", f"{PACKAGES}/numpy/core/x.so"), MODEL),
        ((f"{STANDARD}/asyncio/runners.py",), "asyncio"),
        ((LIBC,), EVENT_LOOP),
    ],
)
def test_a_stack_belongs_to_the_innermost_room_or_library(
    files: tuple[str, ...], part: str
) -> None:
    assert part_of(_stack(*files), "api_gateway") == part


@pytest.mark.parametrize("name", ["epoll_wait", "write", "sendmsg", "__poll", "getpid", "syscall"])
def test_what_ends_in_a_system_call_is_the_kernels_or_waits(name: str) -> None:
    assert part_of([*_stack(DOOR), Frame(name, LIBC)], "api_gateway") is None
    inside = [*_stack(DOOR), Frame(name, LIBC), Frame("0x7f00", LIBC)]
    assert part_of(inside, "api_gateway") is None


def test_a_thread_that_waits_for_a_lock_takes_no_time() -> None:
    lock = Frame("PyThread_acquire_lock_timed", "/usr/lib/libpython3.11.so.1.0")

    assert part_of([*_stack(DOOR), lock, Frame("0x7f00", LIBC)], "api_gateway") is None
    assert part_of([*_stack(DOOR), lock], "api_gateway") == "http"


def test_the_collector_of_cycles_counts_for_itself() -> None:
    collects = Frame("gc_collect_main", "/usr/lib/libpython3.11.so.1.0")

    assert part_of([*_stack(DOOR), collects, Frame("f", LIBC)], "api_gateway") == COLLECTOR


def test_a_method_of_that_name_is_no_system_call() -> None:
    assert part_of([*_stack(), Frame("write", DOOR)], "api_gateway") == "http"
    assert part_of([*_stack(DOOR), Frame("malloc", LIBC)], "api_gateway") == "http"


def test_samples_are_added_up_by_thread_and_part() -> None:
    recorded = (
        f"thread (7): MainThread;run ({ENTRY}:65);respond ({DOOR}:10) 3\n"
        f"thread (7): MainThread;run ({ENTRY}:65);respond ({DOOR}:12);malloc ({LIBC}) 4\n"
        f"thread (7): MainThread;run ({ENTRY}:65);respond ({DOOR}:12);write ({LIBC}) 50\n"
        f"thread (8): poll (er);std::f(int) const (/x/site-packages/grpc/_cython/cygrpc.so) 2\n"
        f"thread (9): waits;poll ({LIBC}) 9\n"
        "no stack at all\n"
    )

    assert samples_by_thread(recorded, "api_gateway") == {7: {"http": 7}, 8: {"grpc": 2}, 9: {}}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="knows x86-64's instruction")
def test_an_address_behind_the_instruction_syscall_is_a_system_call() -> None:
    function = ctypes.cast(ctypes.CDLL(None).getppid, ctypes.c_void_p).value
    assert function is not None
    inside = function + ctypes.string_at(function, 64).index(b"\x0f\x05") + 2
    stack = f"thread (7): x;respond ({DOOR}:10);0x{function:x} ({LIBC});0x{inside:x} ({LIBC}) 3"

    named = name_system_calls(stack, os.getpid())

    assert named.endswith(f"0x{function:x} ({LIBC});syscall ({LIBC}) 3")
    assert samples_by_thread(named, "api_gateway") == {7: {}}
    assert name_system_calls(f"0x10 ({LIBC})", os.getpid()) == f"0x10 ({LIBC})"


def test_a_thread_weighs_what_it_took_however_often_it_was_sampled() -> None:
    samples = {1: Counter(http=3, wire=1), 2: Counter({MODEL: 96}), 3: Counter[str]()}

    parts = split(30.0, {1: 16.0, 2: 4.0, 3: 1.0, 4: 5.0}, samples)

    assert parts == pytest.approx(
        {"http": 12.0, MODEL: 4.0, "wire": 4.0, NATIVE_THREADS: 5.0, NOT_SAMPLED: 5.0}
    )


def test_the_parts_of_a_process_add_up_to_its_user_time() -> None:
    assert split(9.0, {1: 10.0}, {1: Counter(http=1, wire=1)}) == {"http": 4.5, "wire": 4.5}
    assert split(0.0, {}, {}) == {}


def _level(connections: int, factor: float) -> dict[str, Any]:
    return {
        "connections": connections,
        "per_second": 1000.0,
        "p50_ms": 2.0,
        "generator": 3.0,
        "processes": {"api_gateway": 50 * factor, "rabbitmq": 10 * factor, "mongod": 1 * factor},
        "kernel": {"api_gateway": 20 * factor, "rabbitmq": 5 * factor, "mongod": 0.0},
        "parts": {"api_gateway": {"http": 29 * factor, "asyncio": 0.6 * factor, "x": 0.4 * factor}},
        "samples": {"api_gateway": 1200},
    }


def _profile() -> dict[str, Any]:
    return {
        "when": "2030-01-02T03:04:05+00:00",
        "commit": "abc1234",
        "dirty": False,
        "environment": {"cpu": "a processor", "cores": 2, "load_average": [0.5]},
        "effort": {"rounds": 5, "seconds": 5, "sampled": 12},
        "levels": [_level(1, 10), _level(256, 1)],
    }


def test_the_parts_of_a_service_add_up_to_its_whole() -> None:
    levels = _profile()["levels"]

    rows = service_rows("api_gateway", levels)

    assert [name for name, _ in rows] == ["http", "kernel (system calls)", OTHERS]
    for at, level in enumerate(levels):
        total = sum(values[at] for _, values in rows)
        assert total == pytest.approx(level["processes"]["api_gateway"])


def test_the_page_says_the_sum_and_each_share() -> None:
    text = page(_profile())

    assert "At 256 connections a REST prediction takes 61.0 µs of CPU time" in text
    assert "Gateway 50.0 µs (82%), RabbitMQ 10.0 µs (16%)." in text
    assert "| **all** | **610.0** | **61.0** |" in text
    assert "| http | 290.0 | 29.0 |" in text
    assert "1,200 to 1,200 samples" in text


def test_the_chart_has_a_panel_for_each_load_and_each_service() -> None:
    data = chart_data(_profile())

    assert [panel["title"] for panel in data["levels"]] == ["1 connection", "256 connections"]
    assert data["levels"][1]["bars"] == {"Gateway": 50.0, "RabbitMQ": 10.0, "others": 1.0}
    assert sum(data["services"][0]["bars"].values()) == pytest.approx(50)
