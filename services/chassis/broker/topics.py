"""Topic patterns as AMQP defines them: words between dots, "*" for one word, "#" for any number of
words.
"""

from __future__ import annotations


def matches(pattern: str, routing_key: str) -> bool:
    """Whether the routing key matches the pattern."""
    words = pattern.split(".")
    reached = _past_hashes({0}, words)
    for word in routing_key.split("."):
        step: set[int] = set()
        for at in reached:
            if at == len(words):
                continue
            if words[at] == "#":
                step.add(at)
            elif words[at] in ("*", word):
                step.add(at + 1)
        reached = _past_hashes(step, words)
    return len(words) in reached


def _past_hashes(reached: set[int], words: list[str]) -> set[int]:
    """The positions reached, and those beyond every "#" there, which may stand for no word at
    all.
    """
    result = set(reached)
    for at in reached:
        while at < len(words) and words[at] == "#":
            at += 1
            result.add(at)
    return result
