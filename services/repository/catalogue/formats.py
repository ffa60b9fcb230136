"""Checks a model's format: its id, and that an artifact of a known format begins as that format
does. Knows the formats that can run code.

Runtimes bring formats as plug-ins, so unknown formats are stored too, unless the artifact is a
pickle.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from stellwerk.wire.errors import InvalidInput

# Loading one of these can execute code in the artifact, so storing one needs UNSAFE_PERMISSION.
UNSAFE_FORMATS = frozenset({"pickle", "joblib", "cloudpickle"})
UNSAFE_PERMISSION = "models.write_unsafe"

# Bytes at the beginning of an artifact that check_beginning needs: safetensors takes 9.
HEAD_BYTES = 16
_ID = re.compile(r"[a-z][a-z0-9_]{0,31}")
_ZIP = b"PK\x03\x04"
# Bytes of a safetensors header, which is JSON; the library itself refuses longer ones.
_MAX_SAFETENSORS_HEADER = 100_000_000
# The tag of onnx.ModelProto's first field, ir_version, which every model has. Other protobuf tags
# are opcodes of old pickles too.
_ONNX_FIRST_TAG = 0x08
# Beginnings of the compressions that joblib offers: zlib, gzip, bz2, xz, lzma, lz4.
_COMPRESSED = (b"\x78", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x5d\x00", b"\x04\x22\x4d\x18")


def check_format(value: str) -> str:
    """Returns the format's id if it is well-formed. Raises InvalidInput."""
    if not _ID.fullmatch(value):
        raise InvalidInput(
            "format must be 1 to 32 lower-case letters, digits or '_', beginning with a letter,"
            " such as 'skops'",
            field="format",
        )
    return value


def is_pickle(head: bytes) -> bool:
    """Returns whether the bytes begin as a pickle of protocol 2 to 5; pickles of older protocols
    have no mark.
    """
    return len(head) >= 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def _is_zip(head: bytes) -> bool:
    return head.startswith(_ZIP)


def _is_onnx(head: bytes) -> bool:
    return len(head) > 1 and head[0] == _ONNX_FIRST_TAG and head[1] > 0


def _is_safetensors(head: bytes) -> bool:
    if len(head) < 9:
        return False
    (length,) = struct.unpack_from("<Q", head)
    return 2 <= length <= _MAX_SAFETENSORS_HEADER and head[8:9] == b"{"


def _is_joblib(head: bytes) -> bool:
    return is_pickle(head) or head.startswith(_COMPRESSED)


# Format → the test of an artifact's beginning, and the words for it in an error.
_BEGINNINGS: dict[str, tuple[Callable[[bytes], bool], str]] = {
    "skops": (_is_zip, "a ZIP archive"),
    "torch_export": (_is_zip, "a ZIP archive"),
    "onnx": (_is_onnx, "an ONNX protobuf"),
    "torch_safetensors": (_is_safetensors, "a safetensors header"),
    "pickle": (is_pickle, "a pickle of protocol 2 or later"),
    "cloudpickle": (is_pickle, "a pickle of protocol 2 or later"),
    "joblib": (_is_joblib, "a pickle of protocol 2 or later, or a compressed one"),
}


def check_beginning(format_id: str, head: bytes) -> None:
    """Checks the first HEAD_BYTES of an artifact, or all of a shorter one, against its format.
    Raises InvalidInput.
    """
    known = _BEGINNINGS.get(format_id)
    if known is not None and not (head and known[0](head)):
        what = "a pickle, which can run code" if is_pickle(head) else "something else"
        raise InvalidInput(
            f"an artifact of format '{format_id}' begins with {known[1]}, this one with {what}; "
            "declare the format that it really has",
            field="artifact",
            format=format_id,
        )
    if known is None and is_pickle(head):
        raise InvalidInput(
            f"this artifact is a pickle, which can run code, but is declared as '{format_id}'; "
            "declare the format 'pickle'",
            field="artifact",
            format=format_id,
        )
