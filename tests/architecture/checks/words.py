"""Sentences: docstrings that start with a verb or a noun, say what they name, and end in time.

A function's docstring starts with a verb ("Returns", "Records"); nothing starts with a relative
clause; no sentence of a docstring has more than 30 words; a statement sets one attribute; a log
event is a constant in snake_case.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.checks.tree import SHIPPED, called, dotted, modules

# A reader holds about 25 words; five more are room for names of files and RPCs.
WORDS_IN_A_SENTENCE = 30
# Words that begin a relative clause or point at something not yet named.
CLAUSES = frozenset(
    [
        "What",
        "Whatever",
        "Whether",
        "Which",
        "Who",
        "Whoever",
        "Whom",
        "Whose",
        "Why",
        "How",
        "Where",
        "When",
        "That",
        "So",
        "Such",
        "It",
        "Its",
        "Of",
        "As",
        "If",
        "One's",
        "They",
        "Those",
    ]
)
# A verb in the third person: "Returns", "Yields", "Has", "Is".
VERB = re.compile(r"[A-Z][a-z]*(?:-[a-z]+)?s\b")
NOT_VERBS = frozenset(
    ["This", "Its", "Yes", "Us", "Always", "Others", "Whose", "Models", "Bytes", "Rows", "Requests"]
)
PHRASES = {
    "so many": "say the number or name the parameter",
    "so much": "say the quantity or name the parameter",
    "lest": 'write "so that … not"',
    "what comes": "name the noun",
    "what came": "name the noun",
    "in company": 'write "together with other requests"',
    "of ours": "name the noun",
}
LOG_LEVELS = frozenset(("debug", "info", "warning", "error", "exception", "critical"))
# The function of services.chassis.logs that takes a logger, a level and then the event.
WRITE_FOR = "write_for"
EVENT = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
PROPERTIES = frozenset(("property", "cached_property", "functools.cached_property"))

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstrings(root: Path) -> list[str]:
    """Returns a complaint for each docstring that breaks a rule for sentences."""
    return [
        module.at(getattr(node, "lineno", 1), complaint)
        for module in modules(root, SHIPPED)
        for node in ast.walk(module.tree)
        if isinstance(node, Documented) and (text := ast.get_docstring(node))
        for complaint in _complaints(node, text)
    ]


def comments(root: Path) -> list[str]:
    """Returns a complaint for each comment that holds a phrase which must be decoded."""
    found = []
    for module in modules(root, SHIPPED):
        for token in tokenize.generate_tokens(io.StringIO(module.source).readline):
            if token.type == tokenize.COMMENT:
                found += [module.at(token.start[0], why) for why in _phrases(token.string)]
    return found


def assignments(root: Path) -> list[str]:
    """Returns a complaint for each statement that sets several attributes at once."""
    return [
        module.at(node, "sets several attributes; write one assignment for each")
        for module in modules(root, SHIPPED)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Assign) and _sets_several(node)
    ]


def events(root: Path) -> list[str]:
    """Returns a complaint for each log call whose event is no constant in snake_case."""
    return [
        module.at(node, "a log event is a constant in snake_case; data are its fields")
        for module in modules(root, ("services",))
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and _logs(node) and not _is_event(node)
    ]


def _complaints(node: Documented, text: str) -> Iterator[str]:
    first = text.split(maxsplit=1)[0].strip('`"*:.,;') if text.split() else ""
    if first in CLAUSES:
        yield f'its docstring starts with "{first}"; start with a verb or name the noun'
    elif _acts(node) and (not VERB.fullmatch(first) or first in NOT_VERBS):
        yield f'its docstring starts with "{first}"; start with a verb: Returns, Records, Raises'
    for sentence in _sentences(text):
        if (count := len(sentence.split())) > WORDS_IN_A_SENTENCE:
            shown = " ".join(sentence.split()[:6])
            yield f'"{shown} …" has {count} words, at most {WORDS_IN_A_SENTENCE}'
    yield from _phrases(text)


def _acts(node: Documented) -> bool:
    """Returns whether the node is a function, no property, and no command.

    The docstring of a command is its help text: "List the models", as users know it.
    """
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    names = {dotted(decorator) for decorator in node.decorator_list}
    calls = {
        called(decorator) for decorator in node.decorator_list if isinstance(decorator, ast.Call)
    }
    return not names & PROPERTIES and not any(
        name.rpartition(".")[2] in ("command", "group", "callback") for name in calls
    )


def _sentences(text: str) -> Iterator[str]:
    """Yields the sentences of a docstring; a list's items and indented blocks count apart."""
    for paragraph in re.split(r"\n\s*\n|\n\s*(?=[-*·•] )", text):
        if not paragraph.startswith("    "):
            yield from re.split(r"(?<=[.:;!?])\s+", " ".join(paragraph.split()))


def _phrases(text: str) -> Iterator[str]:
    plain = " ".join(text.split()).lower()
    for phrase, advice in PHRASES.items():
        if re.search(rf"\b{phrase}\b", plain):
            yield f'"{phrase}": {advice}'


def _sets_several(node: ast.Assign) -> bool:
    """Returns whether the statement is `self.a, self.b = a, b`; a swap or a result is none."""
    target = node.targets[0]
    if not isinstance(target, ast.Tuple) or not isinstance(node.value, ast.Tuple):
        return False
    names = [dotted(item) for item in target.elts]
    return all(name.startswith("self.") for name in names)


def _logs(node: ast.Call) -> bool:
    owner, _, method = called(node).rpartition(".")
    return method == WRITE_FOR or (
        method in LOG_LEVELS and owner.rpartition(".")[2] in ("log", "_log", "logger")
    )


def _is_event(node: ast.Call) -> bool:
    place = 2 if called(node).endswith(WRITE_FOR) else 0
    first = node.args[place] if len(node.args) > place else None
    if isinstance(first, ast.Name):
        return first.id.isupper()
    return (
        isinstance(first, ast.Constant)
        and isinstance(first.value, str)
        and EVENT.fullmatch(first.value) is not None
    )
