"""Runs the gateway, `python -m services.api_gateway`, with settings from the environment."""

import os
import sys

from services.api_gateway.config import GatewaySettings
from services.api_gateway.main import compose
from services.chassis.lifecycle.entry import run

if __name__ == "__main__":
    sys.exit(run(compose, GatewaySettings, os.environ))
