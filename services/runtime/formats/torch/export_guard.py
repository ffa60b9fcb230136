"""Checks a `.pt2` archive before torch loads it, because torch's loader runs code out of it.

A hostile archive can make torch 2.13 do the following, as its source shows; each has a rule below.

- unpickle weights and constants, and sample inputs that its safe reader refuses;
- load compiled libraries;
- call any function below `torch` that a node names (`torch.os.system` is one);
- evaluate shape expressions as Python;
- import modules named in tree specs;
- paste names into Python source that it executes.
"""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator
from typing import IO, Any

import torch
from torch.export.pt2_archive._package import PT2ArchiveReader

from stellwerk.wire.errors import Corrupt, UnsafeFormat

# The members that torch.export.save writes for a program without custom objects. Compiled code,
# custom and opaque objects, and the pickled files of older versions have other names.
_MEMBERS = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/(weights/model_weights|constants/model_constants)_config\.json"
    r"|archive_format|archive_version|byteorder|version|\.data/[a-z_]+|\.format_version|\.storage_alignment"
    r"|extra/[A-Za-z0-9_.-]+"
)
# Functions that a node may call: operators on tensors, arithmetic on sizes. Excludes the two aten
# operators that open files, and operators of other libraries.
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!save\b|from_file\b)[a-z0-9_]+\.[A-Za-z0-9_]+"
    r"|torch\.ops\.prims\.[a-z0-9_]+\.[A-Za-z0-9_]+"
    r"|torch\.ops\.higher_order\.(cond|while_loop|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|torch\.sym_(int|float|max|min|not|ite|sqrt|sum)|torch\._sym_sqrt"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|and_|or_|xor|not_|eq|ne|lt|le|gt|ge|getitem)"
    r"|math\.(ceil|floor|trunc|sqrt|log2)"
)
# Characters of names and types, of which no Python statement can be made.
_PLAIN = re.compile(r"[A-Za-z0-9_.\[\]<>=:\-]{0,1024}")
# Keys with text for people (stack traces, module types), and guards, which torch does not run here.
_FREE_TEXT = frozenset({"metadata", "guards_code", "torch_version"})
_TREE_SPECS = frozenset({"in_spec", "out_spec"})
_TREE_TYPES = frozenset(
    {"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
)
# sympy's constructors in shape expressions.
# fmt: off
_EXPRESSION_CALLS = frozenset((
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Mod", "FloorDiv",
    "CeilDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt",
    "IntTrueDiv", "FloatTrueDiv", "PowByNatural", "TruncToInt", "RoundToInt", "ToFloat", "Identity",
    "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan", "LessThan",
    "StrictGreaterThan", "GreaterThan", "And", "Or", "Not",
))
# fmt: on
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.BinOp)
_COMPARISONS = (ast.Compare, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
_TERMS = (ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword)
_EXPRESSION_NODES = (*_TERMS, ast.UnaryOp, ast.USub, *_ARITHMETIC, *_COMPARISONS)


def check(file: IO[bytes]) -> None:
    """Raises UnsafeFormat if loading the archive could run code, Corrupt if it is no such archive.

    Reads with torch's own reader, so that this check and the load see the same archive.
    """
    try:
        reader = PT2ArchiveReader(file)
        members = reader.get_file_names()
        # The JSON documents tell torch how to read all other members.
        documents = {
            name: json.loads(reader.read_string(name)) for name in members if name.endswith(".json")
        }
    except (RuntimeError, AssertionError, ValueError) as exc:
        raise Corrupt("the artifact is not a torch.export archive; export the model again") from exc
    for name in members:
        if not _MEMBERS.fullmatch(name):
            raise _unsafe(f"holds '{name[:64]}', which is more than a program of tensor operations")
    for name, document in documents.items():
        if name.startswith("data/"):
            _check_payloads(document)
        elif name.startswith("models/"):
            _check_program(document, "")
    _check_sample_inputs(reader, members)


def _unsafe(what: str) -> UnsafeFormat:
    return UnsafeFormat(f"the torch.export archive {what}; export a model of torch's own operators")


def _check_payloads(document: Any) -> None:
    config = document.get("config") if isinstance(document, dict) else None
    if not isinstance(config, dict):
        raise Corrupt(
            "the artifact's weights have no readable configuration; export the model again"
        )
    for payload in config.values():
        if not isinstance(payload, dict) or payload.get("use_pickle") is not False:
            raise _unsafe("has pickled weights")
        if not re.fullmatch(r"(weight|tensor)_\d+", str(payload.get("path_name"))):
            raise _unsafe("has a constant that is no tensor")


def _check_sample_inputs(reader: PT2ArchiveReader, members: list[str]) -> None:
    if "data/sample_inputs/model.pt" not in members:
        return
    data = reader.read_bytes("data/sample_inputs/model.pt")
    try:
        # torch tries this first and, if it fails, unpickles without restriction.
        torch.load(io.BytesIO(data), weights_only=True) if data else None
    except Exception as exc:
        raise _unsafe("has sample inputs that are not plain tensors") from exc


def _check_program(value: Any, key: str) -> None:
    """Checks every string of the program's JSON by the key it stands under."""
    if isinstance(value, dict):
        for name, child in value.items():
            if not _PLAIN.fullmatch(name):
                raise _unsafe("has a name that is none")
            if name == "as_custom_obj":
                raise _unsafe("uses a custom object")
            if name not in _FREE_TEXT:
                _check_program(child, name)
        for node in _nodes(value):
            if not _OPERATOR.fullmatch(str(node.get("target"))):
                raise _unsafe(f"calls '{str(node.get('target'))[:64]}'")
    elif isinstance(value, list):
        for child in value:
            _check_program(child, key)
    elif isinstance(value, str):
        _check_string(value, key)


def _nodes(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    nodes = value.get("nodes", [])
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise Corrupt("the artifact's graph is not one; export the model again")
    yield from nodes


def _check_string(value: str, key: str) -> None:
    if key == "expr_str":
        _check_expression(value)
    elif key == "as_operator":
        if not _OPERATOR.fullmatch(value):
            raise _unsafe(f"calls '{value[:64]}'")
    elif key in _TREE_SPECS:
        _check_tree(value)
    elif key in ("as_string", "as_strings"):
        # An operator's argument, which torch writes into source as a Python literal.
        pass
    elif not _PLAIN.fullmatch(value):
        raise _unsafe("has a name that is none")


def _check_expression(text: str) -> None:
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError) as exc:
        raise _unsafe("has a shape that is no expression") from exc
    for node in ast.walk(tree):
        allowed = isinstance(node, _EXPRESSION_NODES)
        if isinstance(node, ast.Call):
            allowed = isinstance(node.func, ast.Name) and node.func.id in _EXPRESSION_CALLS
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            allowed = re.fullmatch(r"[A-Za-z0-9_]{1,64}|-?[0-9.e+-]{1,64}", node.value) is not None
        elif isinstance(node, ast.Name):
            allowed = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", node.id) is not None
        if not allowed:
            raise _unsafe("has a shape that is more than arithmetic")


def _check_tree(text: str) -> None:
    if not text:
        return
    try:
        waiting = [json.loads(text)[1]]
        while waiting:
            spec = waiting.pop()
            if spec["type"] is not None and spec["type"] not in _TREE_TYPES:
                raise _unsafe(f"takes or gives a '{str(spec['type'])[:64]}'")
            keys = (
                json.loads(spec["context"]) if isinstance(spec["context"], str) else spec["context"]
            )
            if keys is not None and not (
                isinstance(keys, list) and all(_is_name(item) for item in keys)
            ):
                raise _unsafe("has an input or output name that is none")
            waiting += spec["children_spec"]
    except (ValueError, KeyError, IndexError, TypeError) as exc:
        raise Corrupt(
            "the artifact's inputs and outputs cannot be read; export the model again"
        ) from exc


def _is_name(item: Any) -> bool:
    return isinstance(item, int) or (
        isinstance(item, str) and re.fullmatch(r"[A-Za-z0-9_.]{1,256}", item) is not None
    )
