"""Runs the router: `python -m services.router`, with settings from the environment."""

import os
import sys

from services.chassis.lifecycle.entry import run
from services.router.config import RouterSettings
from services.router.main import compose

if __name__ == "__main__":
    sys.exit(run(compose, RouterSettings, os.environ))
