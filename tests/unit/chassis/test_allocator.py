"""Memory of messages is kept, that of models is not."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
