"""A conformance suite for servers of the Open Inference Protocol, over REST and gRPC.

`check(Options("http://host:8000", "host:8001"))` returns a Report; `stellwerk conformance` is the
same as a command. Each case is a sentence, a function, and a basis: specified by the protocol's
text, a convention of its clients, or our sensible reading where the text is silent.
"""

from __future__ import annotations

from stellwerk.conformance.reporting.report import Report, Result, Verdict
from stellwerk.conformance.server.subject import Subject, Unreachable
from stellwerk.conformance.suite import Options, check, connect

__all__ = ["Options", "Report", "Result", "Subject", "Unreachable", "Verdict", "check", "connect"]
