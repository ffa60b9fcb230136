"""python -m services.router, pretended."""

from __future__ import annotations

import os

from fake_service import serve

serve(os.environ.get("STELLWERK_NAME", "router"))
