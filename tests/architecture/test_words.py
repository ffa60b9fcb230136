"""Rules for sentences, in the repository and with a violation planted in a copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.checks import words
from tests.architecture.planting import ROOT, copy, expect_none, new_findings

CHECKS = [words.docstrings, words.comments, words.assignments, words.events]
LONG = " ".join(["word"] * 30)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_repository_keeps_to_its_rules_for_sentences(check) -> None:
    expect_none(check(ROOT))


@pytest.mark.parametrize(
    ("check", "text", "finding"),
    [
        (words.docstrings, 'def f():\n    """The rows."""', 'starts with "The"'),
        (words.docstrings, 'def f():\n    """Models by name."""', 'starts with "Models"'),
        (words.docstrings, 'async def f():\n    """Whether it is."""', 'starts with "Whether"'),
        (words.docstrings, 'class A:\n    """What waits for a slot."""', 'starts with "What"'),
        (words.docstrings, f'def f():\n    """Returns {LONG}."""', "has 31 words, at most 30"),
        (words.docstrings, 'def f():\n    """Takes so many rows."""', '"so many"'),
        (words.comments, "x = 1  # lest they wake each other", '"lest"'),
        (words.assignments, "def f(self, a, b):\n    self.a, self._b = a, b", "several attributes"),
        (words.events, 'def f(self):\n    self._log.info("The model is loaded")', "log event"),
        (words.events, 'def f(log, n):\n    log.warning(f"lost_{n}")', "log event"),
        (words.events, 'def f(log, c):\n    logs.write_for(log, 20, "All calls", c)', "log event"),
    ],
)
def test_a_planted_sentence_is_found(tmp_path: Path, check, text: str, finding: str) -> None:
    root = copy(tmp_path, "services/router/config.py")

    found = new_findings(check, root, "services/router/config.py", text)

    assert len(found) == 1
    assert "services/router/config.py" in found[0]
    assert finding in found[0]


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (words.docstrings, 'def f():\n    """Returns the largest batch size ≤ `rows`."""'),
        (words.docstrings, '@property\ndef f():\n    """The version\'s name."""'),
        (words.docstrings, 'class A:\n    """A queue of requests for one model."""'),
        (words.assignments, "def f(self, a, b):\n    self.a, rest = a, b"),
        (words.events, 'def f(self):\n    self._log.info("model_loaded", model="iris")'),
    ],
)
def test_a_plain_sentence_is_no_finding(tmp_path: Path, check, text: str) -> None:
    root = copy(tmp_path, "services/router/config.py")

    assert new_findings(check, root, "services/router/config.py", text) == []
