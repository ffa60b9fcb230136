"""The platform passes the conformance suite that it offers to others, over each broker."""

from __future__ import annotations

import pytest

from stellwerk.conformance import Options, Verdict, check
from stellwerk.conformance.prepare import prepare
from tests.journey.stack import Platform

# What this platform does not have: numpy knows no BF16, and pickles, of which the decoupled one is,
# are not allowed.
ABSENT = {"conformance_echo_bf16", "conformance_count_up"}


@pytest.mark.timeout(300)
def test_the_platform_conforms(platform: Platform) -> None:
    prepare(platform.http, platform.token)

    report = check(Options(platform.http, platform.grpc, platform.token))

    failed = [
        f"{r.case.name}: {r.expected} <- {r.got}"
        for r in report.results
        if r.verdict is Verdict.FAIL
    ]
    assert failed == []
    reasons = {r.reason for r in report.results if r.verdict is Verdict.SKIP}
    assert reasons == {f"the server has no model {name}" for name in ABSENT}
    assert report.counts()[Verdict.PASS] > 300
