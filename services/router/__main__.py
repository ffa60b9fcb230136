"""`python -m services.router`: settings from the environment, then the process until it is told to
stop.
"""

import os
import sys

from services.chassis.lifecycle.entry import run
from services.router.config import RouterSettings
from services.router.main import compose

if __name__ == "__main__":
    sys.exit(run(compose, RouterSettings, os.environ))
