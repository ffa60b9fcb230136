"""Memory of messages is kept while there are any, that of models is not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from services.chassis.allocator import IdleWatch

PROGRAM = """
import resource, sys
from services.chassis import allocator
if sys.argv[1] == "kept" and not allocator.keep_memory_of_messages():
    sys.exit(3)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def copies(size, count):
    for _ in range(count):
        blocks = [bytearray(size) for _ in range(3)]
        del blocks
copies(1 << 20, 20)
before = faults()
copies(1 << 20, 100)
print(faults() - before)
big = bytearray(64 << 20)
with_big = int(open("/proc/self/statm").read().split()[1])
del big
print(with_big - int(open("/proc/self/statm").read().split()[1]))
"""


def measured(how: str) -> tuple[int, int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, timeout=60
    )
    if done.returncode == 3:
        pytest.skip("the allocator is not glibc's")
    assert done.returncode == 0, done.stderr
    faults, pages = done.stdout.split()
    return int(faults), int(pages)


def test_a_message_costs_no_page_faults_and_a_model_leaves_nothing() -> None:
    default, kept = measured("default")[0], measured("kept")

    assert kept[0] < default / 10
    assert kept[1] * 4096 > 60 << 20


AFTERWARDS = """
import sys
from services.chassis import allocator
if not allocator.keep_memory_of_messages():
    sys.exit(3)
def pages():
    return int(open("/proc/self/statm").read().split()[1])
blocks = [bytearray(1 << 18) for _ in range(128)]
full = pages()
# One block stays at the top, so that nothing returns by itself.
del blocks[:-1]
kept = pages()
allocator.give_back()
print(full - kept, kept - pages())
"""


def test_what_messages_took_is_given_back_when_asked() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AFTERWARDS], capture_output=True, text=True, timeout=60
    )
    if done.returncode == 3:
        pytest.skip("the allocator is not glibc's")
    assert done.returncode == 0, done.stderr
    by_itself, given_back = (int(pages) * 4096 for pages in done.stdout.split())
    assert by_itself < 1 << 20
    assert given_back > 30 << 20


def test_a_process_becomes_idle_once_after_each_busy_time() -> None:
    watch = IdleWatch(100.0)

    found = [watch.has_become_idle(spent) for spent in (108.0, 108.1, 108.2, 112.0, 112.4, 112.5)]

    assert found == [False, True, False, False, True, False]
