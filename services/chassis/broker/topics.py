"""Matches routing keys to topic patterns as AMQP defines them.

Words stand between dots; "*" stands for one word and "#" for any number of words.
"""

from __future__ import annotations


def matches(pattern: str, routing_key: str) -> bool:
    """Returns whether the routing key matches the pattern."""
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
    """Returns the positions reached, and those behind each "#" there: it may stand for no word."""
    result = set(reached)
    for at in reached:
        while at < len(words) and words[at] == "#":
            at += 1
            result.add(at)
    return result
