"""Runs `python -m services.runtime`: settings from the environment, then the process until a signal
stops it.
"""

import os
import sys

from services.chassis import allocator
from services.chassis.lifecycle.entry import run
from services.runtime.config import RuntimeSettings
from services.runtime.main import compose

if __name__ == "__main__":
    allocator.use_one_heap()
    sys.exit(run(compose, RuntimeSettings, os.environ))
