"""Starts the control plane's process: `python -m services.controlplane`."""

import os
import sys

from services.chassis.lifecycle.entry import run
from services.controlplane.config import ControlPlaneSettings
from services.controlplane.main import compose

if __name__ == "__main__":
    sys.exit(run(compose, ControlPlaneSettings, os.environ))
