"""Writes `docs/reference/settings.md` from the services' settings classes; `--check` only says
whether it is fresh.

A setting's description is the comment above its field, so what is read in the code and in the guide
is the same text.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import typing
from pathlib import Path

import pydantic
from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "generated")]

from services.chassis.config import PREFIX, ServiceSettings  # noqa: E402 - needs the path above

TARGET = ROOT / "docs" / "reference" / "settings.md"
SERVICES = ("api_gateway", "router", "runtime", "repository", "controlplane")
_HEAD = """\
# Settings

Made by `make docs` from each service's `config.py`; do not edit.

A service reads its environment variables once, at its start. For every variable `X` there is
`X_FILE`, the path of a file that holds the value: use it for secrets. `stellwerk up` passes
variables that you set on to the services, except those it decides itself.

A service whose settings cannot be used logs one line at level `error` for each wrong variable and
ends with exit code 78 (`EX_CONFIG`): starting it again with the same settings cannot help. A
variable that misspells a setting, such as `STELLWERK_LOG_LEVL`, is logged at level `warning` with
the setting that it resembles, and the service starts. Other unknown variables are ignored, because
services share env files and an older release must start with the settings of a newer one.
"""


def settings_class(service: str) -> type[ServiceSettings]:
    """The one settings class that the service's `config.py` defines."""
    module = importlib.import_module(f"services.{service}.config")
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, ServiceSettings)
        and value.__module__ == module.__name__
    ]
    return found[0]


def comments(cls: type[pydantic.BaseModel]) -> dict[str, str]:
    """The comment above each field, or above the group of lines that it stands in without a blank
    line.
    """
    found: dict[str, str] = {}
    waiting: list[str] = []
    for line in inspect.getsource(cls).splitlines():
        text = line.strip()
        name = text.partition(":")[0]
        if text.startswith("# "):
            waiting.append(text[2:])
        elif name in cls.__annotations__:
            found[name] = " ".join(waiting)
            waiting = []
        elif not text:
            waiting = []
    return found


def rows(cls: type[ServiceSettings], own: set[str]) -> list[str]:
    """A table's lines for the fields of the class that are named."""
    said = comments(ServiceSettings) | comments(cls)
    lines = ["| variable | default | |", "|---|---|---|"]
    for name, field in cls.model_fields.items():
        if name in own:
            lines.append(
                f"| `{PREFIX}{name.upper()}` | {_default(field)} |"
                f" {_describe(said.get(name, ''), field)} |"
            )
    return lines


def document() -> str:
    """The whole page."""
    shared = set(ServiceSettings.model_fields)
    parts = [_HEAD, "## Every service\n", *rows(ServiceSettings, shared)]
    for service in SERVICES:
        cls = settings_class(service)
        changed = {
            name
            for name in shared
            if cls.model_fields[name].default != ServiceSettings.model_fields[name].default
        }
        parts += [f"\n## {service}\n", *rows(cls, set(cls.model_fields) - shared | changed)]
    return "\n".join(parts) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "the user's cache folder"
    value = field.default
    if isinstance(value, pydantic.SecretStr):
        value = value.get_secret_value()
    if value is None or value == "":
        return "–"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _describe(text: str, field: FieldInfo) -> str:
    options = (
        typing.get_args(field.annotation)
        if typing.get_origin(field.annotation) is typing.Literal
        else ()
    )
    listed = ", ".join(f"`{option}`" for option in options)
    return " ".join(
        part for part in (text.replace("|", "\\|"), listed and f"One of {listed}.") if part
    )


def main() -> None:
    text = document()
    if "--check" not in sys.argv:
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        TARGET.write_text(text)
        print(f"wrote {TARGET.relative_to(ROOT)}")
    elif not TARGET.exists() or TARGET.read_text() != text:
        raise SystemExit("docs/reference/settings.md is stale, run `make docs`")


if __name__ == "__main__":
    main()
