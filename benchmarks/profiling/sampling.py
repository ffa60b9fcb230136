"""Records the stacks of a running process with py-spy."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from benchmarks.processes import NotReady
from benchmarks.profiling.stacks import SYSTEM_CALL
from benchmarks.venvs import PROFILER

# Samples per second. At 250 py-spy takes about a third of a core, most of it for native frames.
RATE = 250
# The instruction on x86-64; elsewhere no address is named.
_SYSCALL = b"\x0f\x05"
_ADDRESS = re.compile(r"\b0x(?P<address>[0-9a-f]+) \((?P<file>[^()]*/libc[^()/]*)\)")


def record(pid: int, seconds: float) -> str:
    """Returns the stacks of a process, native frames included, as py-spy writes them.

    The profiler's environment must exist. Raises NotReady where this user may not trace processes.
    """
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "stacks"
        command = [str(PROFILER.bin / "py-spy"), "record", "--native", "--full-filenames"]
        command += [
            "--threads",
            "--function",
            "--format",
            "raw",
            "--rate",
            str(RATE),
            "--output",
            str(output),
        ]
        command += ["--duration", str(max(1, round(seconds))), "--pid", str(pid)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not output.is_file():
            said = " ".join((done.stderr or done.stdout).split())[-300:]
            raise NotReady(
                "py-spy could not trace a process; it needs root or kernel.yama.ptrace_scope=0:"
                f" {said}"
            )
        return name_system_calls(output.read_text(), pid)


def name_system_calls(text: str, pid: int) -> str:
    """Returns stacks in which the addresses of libc that are inside of a system call are named.

    libc's own symbols are stripped, so many a wait for a lock is only an address. Where the
    instruction before it is `syscall`, the thread was in the kernel.
    """
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:

        def named(found: re.Match[str]) -> str:
            address = int(found["address"], 16)
            try:
                before = os.pread(memory.fileno(), len(_SYSCALL), address - len(_SYSCALL))
            except OSError:
                return found[0]
            return f"{SYSTEM_CALL} ({found['file']})" if before == _SYSCALL else found[0]

        return _ADDRESS.sub(named, text)
