"""Records the functions that a process enters. Python imports this module from PYTHONPATH at start.

The recorder is `sys.settrace`, which reports each entry and each resumption of a Python function.
`sys.setprofile` would also report returns and calls of C functions, and no lines.
The recorder is installed in every thread from its start and records only while a byte is not 0.
The byte lies in a file that all processes map into memory, so one write switches all of them.
Callbacks of timers are left out: each one that is given to an event loop is wrapped to be known.
"""

from __future__ import annotations

import asyncio
import functools
import mmap
import opcode
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

FOLDER, PROCESS = "REQUEST_TRACE_FOLDER", "REQUEST_TRACE_PROCESS"
ROOT, PRODUCT = "REQUEST_TRACE_ROOT", "REQUEST_TRACE_PRODUCT"
# The operation with which a function begins, and begins again.
_RESUME = opcode.opmap["RESUME"]
# Frames that call back from an event loop or start a thread: what is above them is no caller.
_LOOPS = ("/asyncio/runners.py", "/asyncio/base_events.py", "/asyncio/events.py", "/threading.py")
_COMPREHENSIONS = re.compile(r"(?:\.(?:<locals>\.)?<(?:listcomp|setcomp|dictcomp|genexpr)>)+$")


def process_name() -> str:
    """Returns the service's name from `python -m services.NAME`, or whose child the process is."""
    for word, module in zip(sys.orig_argv, sys.orig_argv[1:], strict=False):
        if word == "-m" and module.startswith("services."):
            return module.split(".")[1]
    parent = os.environ.get(PROCESS, "")
    return f"{parent} child" if parent else f"python {os.getpid()}"


def entry_offset(code: CodeType) -> int:
    """Returns `f_lasti` at the entry of a function; it is larger when a coroutine is resumed."""
    body = code.co_code
    return next((at for at in range(0, len(body), 2) if body[at] == _RESUME), 0)


def function_name(code: CodeType) -> str:
    """Returns the qualified name; a comprehension belongs to the function around it."""
    return _COMPREHENSIONS.sub("", code.co_qualname)


class Recorder:
    """Writes one line of text for each call of product code, and for each line of it that runs."""

    def __init__(self, environ: dict[str, str]) -> None:
        folder, name = environ[FOLDER], process_name()
        self._root = environ[ROOT].rstrip("/") + "/"
        self._product = tuple(environ[PRODUCT].split(os.pathsep))
        with open(os.path.join(folder, "switch"), "rb") as switch:
            self._switch = mmap.mmap(switch.fileno(), 1, access=mmap.ACCESS_READ)
        path = os.path.join(folder, f"{name}.{os.getpid()}.events")
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        # By file name: the path below the root, or "" for what is no product code.
        self._paths: dict[str, str] = {}
        # By the id of a code object: the object, so that its id stays its own, name, entry offset.
        self._codes: dict[int, tuple[CodeType, str, int]] = {}
        self._lines: set[tuple[int, int, int]] = set()

    def called(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Records an entry or a resumption of product code, and has its lines reported."""
        recording = self._switch[0]
        path = self._path(frame.f_code.co_filename) if recording else ""
        if not path:
            return None
        _, name, entry = self._known(frame.f_code)
        above = self._caller(frame)
        if name == "<module>" or above is None:
            return None
        kind = "call" if frame.f_lasti <= entry else "resume"
        thread = threading.current_thread().name
        self._write(kind, str(recording), str(time.monotonic_ns()), path, name, *above, thread)
        return self._line

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Records the first time that a line runs in a recording."""
        recording = self._switch[0]
        if event == "line" and recording:
            code, name, _ = self._known(frame.f_code)
            place = (recording, id(code), frame.f_lineno)
            if place not in self._lines:
                self._lines.add(place)
                path = self._path(code.co_filename)
                self._write("line", str(recording), str(frame.f_lineno), path, name)
        return self._line

    def _caller(self, frame: FrameType) -> tuple[str, str] | None:
        """Returns file and name of the nearest product function above.

        Both are empty if an event loop or a thread calls. None stands for a timer.
        """
        found: tuple[str, str] | None = None
        above = frame.f_back
        while above is not None and not above.f_code.co_filename.endswith(_LOOPS):
            if above.f_code is _FIRED:
                return None
            if found is None and (path := self._path(above.f_code.co_filename)):
                found = path, self._known(above.f_code)[1]
            above = above.f_back
        return found or ("", "")

    def _path(self, file: str) -> str:
        path = self._paths.get(file)
        if path is None:
            path = file.removeprefix(self._root) if file.startswith(self._product) else ""
            self._paths[file] = path
        return path

    def _known(self, code: CodeType) -> tuple[CodeType, str, int]:
        known = self._codes.get(id(code))
        if known is None:
            known = self._codes[id(code)] = (code, function_name(code), entry_offset(code))
        return known

    def _write(self, *words: str) -> None:
        os.write(self._file, "\t".join(words).encode() + b"\n")


class _Timer:
    """A callback that an event loop calls when its time has come."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[..., object]) -> None:
        self._callback = callback

    def __call__(self, *arguments: Any) -> None:
        self._callback(*arguments)


_FIRED = _Timer.__call__.__code__


def mark_timers(loop: type) -> None:
    """Wraps the callbacks that a class of event loops gets by `call_later` and `call_at`."""
    for name in ("call_later", "call_at"):
        schedule = getattr(loop, name)

        @functools.wraps(schedule)
        def wrapped(
            self: Any,
            when: float,
            callback: Any,
            *rest: Any,
            _schedule: Any = schedule,
            **words: Any,
        ) -> Any:
            return _schedule(self, when, _Timer(callback), *rest, **words)

        setattr(loop, name, wrapped)


def install() -> None:
    """Installs the recorder in this thread and in all that are started later."""
    recorder = Recorder(dict(os.environ))
    mark_timers(asyncio.BaseEventLoop)
    try:
        import uvloop
    except ImportError:
        pass
    else:
        mark_timers(uvloop.Loop)
    os.environ[PROCESS] = process_name()
    threading.settrace(recorder.called)
    sys.settrace(recorder.called)


if FOLDER in os.environ:
    install()
