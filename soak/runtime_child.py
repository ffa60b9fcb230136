"""A whole runtime in a process of its own, attached to the peers at --port, until it is
terminated.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

import uvloop

from services.chassis import allocator
from services.chassis.lifecycle.process import Process
from services.runtime.config import RuntimeSettings
from services.runtime.main import assemble
from services.runtime.models import memory
from tests.fakes.process import standalone


async def serve(port: int, folder: Path, memory_bytes: int) -> None:
    """Runs until SIGTERM."""
    address = f"127.0.0.1:{port}"
    settings = RuntimeSettings(
        name="soak",
        router=address,
        repository=address,
        cache_dir=folder,
        memory_bytes=memory_bytes,
        devices="cpu",
        log_level="error",
        slots=2,
    )

    def build(process: Process) -> None:
        assemble(process, settings, process.open_broker())

    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with standalone("runtime", build, settings):
        await stopped.wait()


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--memory-bytes", type=int, default=0)
    options = parser.parse_args()
    # As a runtime does when it starts.
    memory.use_one_heap()
    allocator.keep_memory_of_messages()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options.port, options.folder, options.memory_bytes))


if __name__ == "__main__":
    main()
