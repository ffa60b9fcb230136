"""Starts the repository process: `python -m services.repository`."""

import os
import sys

from services.chassis.lifecycle.entry import run
from services.repository.config import RepositorySettings
from services.repository.main import compose

sys.exit(run(compose, RepositorySettings, os.environ))
