"""A folder of its own for each process, found again after a restart: several runtimes may share a
cache directory.
"""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TextIO

_MOST = 256


class FolderClaim:
    """The first numbered folder below `root` that no living process holds. The kernel gives it
    back, however we end.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for number in range(_MOST):
            lock = (root / f"{number}.lock").open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                continue
            self._lock: TextIO = lock
            self.path = root / str(number)
            return
        raise OSError(f"all {_MOST} folders below {root} are in use")

    def release(self) -> None:
        """Leaves the folder to another process."""
        self._lock.close()
