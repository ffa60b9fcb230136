"""Reads the stacks that py-spy recorded and counts them by the part of the code that ran. Pure.

A stack belongs to the room or library of its innermost frame that has one: frames of the
interpreter, of libc and of Python's standard library count for their caller. Stacks that end in a
system call are left out. A thread that waits in one takes no CPU time, and the kernel's share of
CPU time is known exactly from /proc.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

_LINE = re.compile(r"^thread \((?P<thread>\d+)\)[^;]*;(?P<frames>.*) (?P<count>\d+)$")
_FRAME = re.compile(r"^(?P<name>.*) \((?P<file>.*?)(?::\d+)?\)$")
_SITE_PACKAGE = re.compile(r"/(?:site|dist)-packages/([A-Za-z0-9_]+)")
_LIBC = re.compile(r"/(?:libc|libpthread|ld-linux[^/]*)[.-][^/]*$")
# Names with which libc enters the kernel; a `0x…` of libc inside of one is the same system call.
_SYSTEM_CALLS = re.compile(
    r"_*(?:libc_)?(?:"
    r"epoll_(?:wait|pwait2?|ctl)|p?poll|p?select|futex|syscall|nanosleep|clock_nanosleep"
    r"|pthread_cond_\w*wait|sem_\w*wait|pthread_mutex_lock|pthread_join"
    r"|p?read(?:v|64)?|p?write(?:v|64)?|recv(?:from|m?msg)?|send(?:to|m?msg|file)?|accept4?|close"
    r"|open(?:at|64)?|getpid|getrandom|madvise|mmap(?:64)?|munmap|mprotect|sched_yield|fsync|ioctl"
    r")(?:_nocancel)?"
)
# Functions of the interpreter that wait; libc's names inside of them are stripped.
_WAITS = re.compile(r"PyThread_acquire_lock\w*|take_gil|PyCOND_\w+")
_COLLECTS = re.compile(r"gc_collect_\w+")
# Everything that runs inside of these is the model at work.
_MODEL = ("sklearn", "onnxruntime", "scipy", "torch")
MODEL = "the model"
EVENT_LOOP = "event loop"
COLLECTOR = "garbage collector"
NATIVE_THREADS = "threads of C libraries"
NOT_SAMPLED = "not sampled"
# Put in place of an address of libc that follows the instruction `syscall`.
SYSTEM_CALL = "syscall"
# How a package is called in the field, where that is not its folder's name.
_CALLED = {"google": "protobuf", "google_crc32c": "protobuf"}
# These work for whoever calls them.
_TRANSPARENT = frozenset(["numpy", "numpy_libs", "typing_extensions"])


@dataclass(frozen=True, slots=True)
class Frame:
    """A function and the source file or library that holds it."""

    name: str
    file: str


@dataclass(frozen=True, slots=True)
class Stack:
    """A recorded stack, outermost frame first, with its thread's id and the number of samples."""

    thread: int
    frames: Sequence[Frame]
    samples: int


def parse(text: str) -> Iterator[Stack]:
    """Yields the stacks of a recording with thread ids; lines that are none are left out."""
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is not None:
            frames = [_frame(part) for part in found["frames"].split(";")]
            yield Stack(int(found["thread"]), frames, int(found["count"]))


def _frame(text: str) -> Frame:
    found = _FRAME.match(text)
    return Frame(found["name"], found["file"]) if found else Frame(text, "")


def samples_by_thread(text: str, service: str) -> dict[int, Counter[str]]:
    """Returns how many samples each room and library has in each thread that was seen.

    `service` is the folder of the service, such as "api_gateway". Samples of the kernel and of
    waits are left out, so that a thread's count may be empty.
    """
    counts: dict[int, Counter[str]] = {}
    for stack in parse(text):
        of_thread = counts.setdefault(stack.thread, Counter())
        if (part := part_of(stack.frames, service)) is not None:
            of_thread[part] += stack.samples
    return counts


def split(
    user: float, threads: Mapping[int, float], samples: Mapping[int, Counter[str]]
) -> dict[str, float]:
    """Returns the user time of a process by room and library, the largest first.

    `threads` holds the user time of each thread. A thread's time is divided by its own samples, so
    that a thread which was sampled while it waited weighs no more than it took. Threads that never
    ran Python count as `NATIVE_THREADS`; the rest of `user` is `NOT_SAMPLED`.
    """
    parts: dict[str, float] = defaultdict(float)
    for thread, spent in threads.items():
        seen = samples.get(thread)
        if seen is None:
            parts[NATIVE_THREADS] += spent
        elif whole := seen.total():
            for part, count in seen.items():
                parts[part] += spent * count / whole
    if (rest := user - sum(parts.values())) > 0:
        parts[NOT_SAMPLED] = rest
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    # Threads and process are read one after the other, so their sums differ a little.
    scale = user / sum(parts.values()) if parts else 0.0
    return {part: spent * scale for part, spent in ordered}


def part_of(frames: Sequence[Frame], service: str) -> str | None:
    """Returns the room or library that a stack belongs to, None if it ends in a system call."""
    inwards = list(reversed(frames))
    if _in_system_call(inwards):
        return None
    if any(_COLLECTS.fullmatch(frame.name) for frame in inwards):
        return COLLECTOR
    if any(_package(frame.file) in _MODEL for frame in inwards):
        return MODEL
    for frame in inwards:
        if (part := _part(frame.file, service)) is not None:
            return part
    return EVENT_LOOP


def _in_system_call(inwards: Sequence[Frame]) -> bool:
    """Returns whether libc's innermost frames name a system call, or the interpreter waits."""
    for depth, frame in enumerate(inwards):
        if not _LIBC.search(frame.file):
            return depth > 0 and _WAITS.fullmatch(frame.name) is not None
        if _SYSTEM_CALLS.fullmatch(frame.name):
            return True
    return False


def _part(file: str, service: str) -> str | None:
    if "/services/" in file:
        return _room(PurePosixPath(file.rpartition("/services/")[2]), service)
    if "/stellwerk/wire/" in file:
        return "wire"
    if "/generated/" in file:
        return "protobuf"
    if "/uvloop/" in file or "/libuv" in file:
        return "uvloop"
    if "/httptools/" in file:
        return "httptools"
    package = _package(file)
    if package is not None:
        return None if package in _TRANSPARENT else _CALLED.get(package, package)
    return "asyncio" if "/asyncio/" in file else None


def _package(file: str) -> str | None:
    found = _SITE_PACKAGE.search(file)
    return found[1].removesuffix("_libs") if found else None


def _room(path: PurePosixPath, service: str) -> str:
    """Returns the room of a file, given below `services/`; of a root module its name."""
    owner, *inside = path.parts
    if not inside or path.name in ("__main__.py", "entry.py"):
        return EVENT_LOOP
    room = inside[0].removesuffix(".py")
    return room if owner == service else f"{owner}/{room}"
