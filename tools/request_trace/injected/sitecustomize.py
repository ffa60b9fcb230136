"""Records the functions that a process enters. Python imports this module at start from PYTHONPATH.

The recorder is `sys.settrace`, which reports each entry and each resumption of a Python function.
`sys.setprofile` would also report returns and calls of C functions, and no executed lines.
The recorder is installed in every thread from its start and records only while a byte is not 0.
The byte lies in a file that all processes map into memory, so one write switches all of them.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
import time
from types import CodeType, FrameType
from typing import Any

FOLDER, PROCESS = "REQUEST_TRACE_FOLDER", "REQUEST_TRACE_PROCESS"
ROOT, PRODUCT = "REQUEST_TRACE_ROOT", "REQUEST_TRACE_PRODUCT"
_RESUME = 151
# The frames that call back from an event loop or start a thread: what stands above is no caller.
_LOOPS = ("/asyncio/runners.py", "/asyncio/base_events.py", "/asyncio/events.py", "/threading.py")
_INNER = (".<locals>.<listcomp>", ".<locals>.<setcomp>", ".<locals>.<dictcomp>", ".<locals>.<genexpr>")


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
    name: str = code.co_qualname
    while name.endswith(_INNER):
        name = name[: name.rindex(".<locals>.")]
    return name


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
        # By the id of a code object, which is kept so that the id stays its own: name and entry offset.
        self._codes: dict[int, tuple[CodeType, str, int]] = {}
        self._lines: set[tuple[int, int, int]] = set()

    def called(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Records an entry or a resumption; asks for the lines of product code and of nothing else."""
        recording = self._switch[0]
        if not recording:
            return None
        path = self._path(frame.f_code.co_filename)
        if not path:
            return None
        _, name, entry = self._known(frame.f_code)
        if name == "<module>":
            return None
        kind = "call" if frame.f_lasti <= entry else "resume"
        caller = self._caller(frame)
        thread = threading.current_thread().name
        self._write("\t".join((kind, str(recording), str(time.monotonic_ns()), path, name, *caller, thread)))
        return self._line

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Records the first time that a line runs in a recording."""
        recording = self._switch[0]
        if event == "line" and recording:
            code, name, _ = self._known(frame.f_code)
            place = (recording, id(code), frame.f_lineno)
            if place not in self._lines:
                self._lines.add(place)
                self._write("\t".join(("line", str(recording), str(frame.f_lineno), self._path(code.co_filename), name)))
        return self._line

    def _caller(self, frame: FrameType) -> tuple[str, str]:
        """Returns file and name of the nearest product function above; two empty texts below an event loop."""
        above = frame.f_back
        while above is not None:
            file = above.f_code.co_filename
            if file.endswith(_LOOPS):
                break
            if path := self._path(file):
                return path, self._known(above.f_code)[1]
            above = above.f_back
        return "", ""

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

    def _write(self, text: str) -> None:
        os.write(self._file, text.encode() + b"\n")


def install() -> None:
    """Installs the recorder in this thread and in all that are started later."""
    recorder = Recorder(dict(os.environ))
    os.environ[PROCESS] = process_name()
    threading.settrace(recorder.called)
    sys.settrace(recorder.called)


if FOLDER in os.environ:
    install()
