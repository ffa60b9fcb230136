"""What stands beside the code and must agree with it: the README's map of services, the env files
of Compose.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

from services.chassis import config
from tests.architecture.checks.tree import SERVICES

ROW = re.compile(r"^\|\s*\[?`([a-z_]+)`[^|]*\|\s*([^|]+?)\s*\|", re.MULTILINE)


def _plain(text: str) -> str:
    return re.sub(r"[`*]", "", " ".join(text.split())).strip().rstrip(".").lower()


def service_map(root: Path) -> list[str]:
    """Services that the README's table lacks, or describes in other words than the package's own
    charter.
    """
    rows = dict(ROW.findall((root / "README.md").read_text(encoding="utf-8")))
    found = []
    for service in SERVICES:
        package = root / "services" / service / "__init__.py"
        charter = ast.get_docstring(ast.parse(package.read_text(encoding="utf-8"))) or ""
        if service not in rows:
            found.append(f"README.md: the table of services has no row for `{service}`")
        elif _plain(rows[service]) not in _plain(charter):
            found.append(
                f"README.md: `{service}` is described as {rows[service]!r}, its charter says"
                " otherwise"
            )
    return found


def variables(path: Path) -> Iterator[tuple[int, str, str]]:
    """The assignments of an env file, with their line; a line that is none has an empty name."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if text and not text.startswith("#"):
            name, equals, value = text.partition("=")
            yield number, name if equals else "", value.strip("\"'")


def settings_class(service: str) -> type[config.ServiceSettings]:
    """The one settings class of a service."""
    module = importlib.import_module(f"services.{service}.config")
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, config.ServiceSettings)
        and value.__module__ == module.__name__
    )


def env_files(root: Path) -> list[str]:
    """Lines of Compose's env files that the service they are for would not understand."""
    found = []
    for path in sorted((root / "compose").rglob("*.env")):
        where = path.relative_to(root).as_posix()
        services = [
            service for service in SERVICES if service in path.stem.replace("-", "_")
        ] or list(SERVICES)
        fields = {
            config.PREFIX + field.upper()
            for service in services
            for field in settings_class(service).model_fields
        }
        environ = {}
        for number, name, value in variables(path):
            if name.startswith(config.PREFIX) and not {name, name.removesuffix("_FILE")} & fields:
                found.append(
                    f"{where}:{number}: no setting of {', '.join(services)} is called {name}"
                )
            elif not name:
                found.append(f"{where}:{number}: is no NAME=value")
            elif name in fields:  # a secret's file is there only when the container runs
                environ[name] = value
        found += [
            f"{where}: {problem}" for service in services for problem in _problems(service, environ)
        ]
    return found


def _problems(service: str, environ: dict[str, str]) -> list[str]:
    """What the service itself says about values that are there; what is not set may come from
    elsewhere.
    """
    try:
        config.load(settings_class(service), environ)
    except config.ConfigError as error:
        return [line for line in str(error).splitlines() if line.partition(":")[0] in environ]
    return []
