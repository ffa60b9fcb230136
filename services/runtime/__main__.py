"""`python -m services.runtime`: settings from the environment, then the process until it is told to
stop.
"""

import os
import sys

from services.chassis.entry import run
from services.runtime import memory
from services.runtime.config import RuntimeSettings
from services.runtime.main import compose

if __name__ == "__main__":
    memory.use_one_heap()
    sys.exit(run(compose, RuntimeSettings, os.environ))
