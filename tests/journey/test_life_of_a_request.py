"""A real request's way through the five processes is the one that the pages tell, and short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Files that a reader opens and returns to them, at most. Before there were rooms a prediction took
# 76 and 90, an upload 57 and 72.
MOST = {"infer": ("55", "26"), "upload": ("58", "66")}


@pytest.mark.parametrize("kind", ["infer", "upload"])
def test_a_trace_agrees_with_the_page_and_stays_short(kind: str) -> None:
    files, returns = MOST[kind]
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tools" / "trace_request.py"),
            kind,
            "--check",
            "--most-files",
            files,
            "--most-returns",
            returns,
        ],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert done.returncode == 0, done.stderr + done.stdout[-4000:]
