"""Layers, homes of third-party packages, purity of wire and import cycles, in the repository and
planted in a copy.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.checks import layering
from tests.architecture.planting import ROOT, copy, expect_none, new_findings


@pytest.mark.parametrize(
    "check",
    [
        layering.layers,
        layering.third_party_homes,
        layering.purity,
        layering.environment,
        layering.cycles,
    ],
    ids=lambda check: check.__name__,
)
def test_the_repository_keeps_its_layers(check) -> None:
    expect_none(check(ROOT))


@pytest.mark.parametrize(
    ("check", "path", "text", "finding"),
    [
        (
            layering.layers,
            "sdk/stellwerk/wire/names.py",
            "import services.chassis",
            "may not import services.chassis",
        ),
        (
            layering.layers,
            "services/chassis/config.py",
            "from services.router import fleet",
            "services.router.fleet",
        ),
        (
            layering.layers,
            "services/router/new.py",
            "from services import runtime",
            "import services.runtime",
        ),
        (
            layering.layers,
            "services/router/new.py",
            "from ..runtime import main",
            "import services.runtime.main",
        ),
        (
            layering.layers,
            "services/router/new.py",
            "def f():\n    from services.runtime import x",
            "runtime.x",
        ),
        (
            layering.layers,
            "services/router/new.py",
            "import importlib\nimportlib.import_module('tests.x')",
            "tests.x",
        ),
        (
            layering.layers,
            "services/router/new.py",
            "from stellwerk.client import connect",
            "stellwerk.client.connect",
        ),
        (
            layering.layers,
            "sdk/stellwerk/client/new.py",
            "import services.router.main",
            "services.router.main",
        ),
        (
            layering.layers,
            "sdk/stellwerk/client/new.py",
            "from services.chassis import config",
            "services.chassis",
        ),
        (
            layering.third_party_homes,
            "services/router/new.py",
            "import pika",
            "pika may be imported only",
        ),
        (
            layering.third_party_homes,
            "services/router/new.py",
            "from pymongo import MongoClient",
            "pymongo.Mongo",
        ),
        (
            layering.third_party_homes,
            "services/router/new.py",
            "def f():\n    import bson.json_util",
            "bson.json",
        ),
        (
            layering.third_party_homes,
            "services/router/new.py",
            "from gridfs import GridFS",
            "gridfs.GridFS",
        ),
        (layering.third_party_homes, "services/runtime/new.py", "import torch.cuda", "torch.cuda"),
        (
            layering.third_party_homes,
            "services/router/new.py",
            "import jwt",
            "jwt may be imported only",
        ),
        (layering.purity, "sdk/stellwerk/wire/names.py", "import time", "may not import time"),
        (
            layering.purity,
            "sdk/stellwerk/wire/names.py",
            "from os import path",
            "may not import os.path",
        ),
        (
            layering.environment,
            "services/router/config.py",
            "import os\nX = os.environ['X']",
            "environment",
        ),
        (
            layering.environment,
            "services/router/new.py",
            "import os\nX = os.getenv('X')",
            "environment",
        ),
        (layering.environment, "services/router/new.py", "from os import environ", "environment"),
    ],
)
def test_a_planted_import_is_found(
    tmp_path: Path, check, path: str, text: str, finding: str
) -> None:
    root = copy(tmp_path, path)

    found = new_findings(check, root, path, text)

    assert len(found) == 1
    assert path in found[0]
    assert finding in found[0]


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    from stellwerk.wire.first import g",
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from stellwerk.wire.first import g",
    ],
    ids=["in a function", "for the type checker"],
)
def test_a_planted_cycle_is_found_though_one_import_hides(tmp_path: Path, text: str) -> None:
    root = copy(tmp_path, "sdk/stellwerk/wire")
    (root / "sdk/stellwerk/wire/first.py").write_text("from stellwerk.wire import second\n")

    found = new_findings(layering.cycles, root, "sdk/stellwerk/wire/second.py", text)

    assert found == ["import cycle: stellwerk.wire.first → stellwerk.wire.second"]


@pytest.mark.parametrize(
    "line",
    [
        "from stellwerk.router.v1 import router_service_pb2",
        "from stellwerk.inference.v2 import grpc_service_pb2",
        "from services.chassis import config",
        "from stellwerk.wire.errors import NotFound",
        "from services.router.fleet import placement",
        "from . import placement",
        "import numpy as np",
    ],
)
def test_an_import_that_is_allowed_is_no_finding(tmp_path: Path, line: str) -> None:
    (tmp_path / "services/router").mkdir(parents=True)

    assert new_findings(layering.layers, tmp_path, "services/router/new.py", line) == []
