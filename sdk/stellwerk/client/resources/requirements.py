"""Requirements that a call or a model has of a runtime, from the arguments of the SDK and the
command line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from stellwerk.client.errors import InvalidInput
from stellwerk.type.v1.requirements_pb2 import Requirements

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGT]?)(i?)[bB]?")
_POWERS = {"": 0, "k": 1, "M": 2, "G": 3, "T": 4}
# The value of a label that is given as a word without "=".
BARE_LABEL = "true"


def byte_size(text: int | str) -> int:
    """Returns the bytes of "2GiB", "500 MB" or a plain number. Raises InvalidInput for
    other text.
    """
    if isinstance(text, int):
        return text
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise InvalidInput(f"'{text}' is no size; write it like 2GiB or 500MB", size=text)
    power = _POWERS["k" if match[2] == "K" else match[2]]
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def parse_pairs(
    texts: Mapping[str, str] | list[str] | tuple[str, ...] | str | None,
) -> dict[str, str]:
    """Returns {"zone": "west"} for {"zone": "west"} and for "zone=west", {"west": "true"} for
    "west".
    """
    if texts is None:
        return {}
    if isinstance(texts, Mapping):
        return {str(key): str(value) for key, value in texts.items()}
    words = [texts] if isinstance(texts, str) else texts
    split = [word.partition("=") for word in words]
    return {key.strip(): value.strip() if equals else BARE_LABEL for key, equals, value in split}


def requirements(
    *,
    gpu: int | bool = 0,
    accelerator: str = "",
    accelerator_memory: int | str = 0,
    memory: int | str = 0,
    cpu: int = 0,
    label: str | None = None,
    labels: Mapping[str, str] | None = None,
    frameworks: Mapping[str, str] | list[str] | None = None,
) -> Requirements:
    """Returns the requirements as the platform takes them. Raises InvalidInput for a size or number
    that is none.
    """
    if gpu < 0 or cpu < 0:
        raise InvalidInput("a runtime cannot be asked for less than no processors", field="gpu")
    if isinstance(frameworks, list):
        frameworks = dict.fromkeys(frameworks, "")
    return Requirements(
        accelerator_count=int(gpu) or int(bool(accelerator or accelerator_memory)),
        accelerator_kind=accelerator or ("cuda" if gpu else ""),
        accelerator_memory_bytes=byte_size(accelerator_memory),
        memory_bytes=byte_size(memory),
        cpu_cores=cpu,
        labels=parse_pairs(label) | parse_pairs(labels),
        frameworks=dict(frameworks or {}),
    )
