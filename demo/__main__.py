"""Runs the demo: exit code 0 if every check holds, 1 if one does not or a step fails."""

from __future__ import annotations

import sys

from demo.story import run

sys.exit(run())
