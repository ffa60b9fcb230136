"""The conformance suite finds what is wrong with a server, and nothing that is not."""

from __future__ import annotations

import pytest

from stellwerk.conformance import Options, Report, Unreachable, Verdict, check
from stellwerk.conformance.cases.case import Area, Basis
from stellwerk.conformance.cases.catalogue import all_cases
from stellwerk.conformance.models.definitions import MODELS
from stellwerk.conformance.suite import chosen
from tests.unit.sdk.conformance_server import serving

# What the little server leaves out: it knows neither /v2/, nor packing, nor chunks, and 405 is 501
# to it.
LEFT_OUT = {"rest.server_metadata_slash", "rest.chunked", "rest.wrong_method"}


def failures(report: Report) -> dict[str, str]:
    return {
        r.case.name: f"{r.expected} <- {r.got}" for r in report.results if r.verdict is Verdict.FAIL
    }


def tried(*faults: str, only: str = "rest*") -> Report:
    with serving(*faults) as server:
        return check(Options(server.url, only=only, timeout=5, extensions=False))


def test_a_server_that_keeps_the_protocol_passes() -> None:
    report = tried()

    found = {name: why for name, why in failures(report).items() if ".compression." not in name}
    assert set(found) == LEFT_OUT, found
    assert report.counts()[Verdict.PASS] > 80


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("outputs are zeros", "rest.response"),
        ("shapes are turned", "rest.response"),
        ("ids are lost", "rest.id"),
        ("errors are the server's", "rest.errors.too_few"),
        ("errors are taken", "rest.errors.too_few"),
        ("errors are taken", "rest.errors.reason_for_malformed"),
        ("errors have no reason", "rest.errors.reasons"),
    ],
)
def test_a_fault_is_found(fault: str, found: str) -> None:
    assert found in failures(tried(fault, only=found))
    assert found not in failures(tried(only=found))


def test_what_a_server_lacks_is_skipped_with_the_reason() -> None:
    report = tried(only="rest.model_error")

    (result, *_) = report.results
    assert result.verdict is Verdict.SKIP
    assert result.reason == "the server has no model conformance_fails_on_13"


def test_without_a_grpc_address_the_cases_over_grpc_are_skipped() -> None:
    (result,) = tried(only="grpc.live").results

    assert result.reason == "no gRPC address was given (--grpc)"


def test_extensions_can_be_left_out() -> None:
    (result,) = tried(only="rest.datatypes.fp32_binary").results

    assert result.reason == "extensions are left out (--core-only)"


def test_a_server_that_dies_is_blamed_once_and_the_rest_is_skipped() -> None:
    with serving("dies of errors", "errors are taken") as server:
        report = check(Options(server.url, only="rest.errors.to*", timeout=5, patience=0.2))

    first, *after = report.results
    assert first.verdict is Verdict.FAIL and first.got.endswith(
        "afterwards the server served nobody"
    )
    assert {r.reason for r in after} == {f"the server has served nobody since {first.case.name}"}
    assert len(after) == 1


def test_a_server_that_is_revived_is_tried_on() -> None:
    revived = []

    def revive(subject: object) -> bool:
        server.faults.discard("dead")
        revived.append(subject)
        return True

    with serving("dies of errors", "errors are taken") as server:
        report = check(
            Options(server.url, only="rest.errors.to*", timeout=5, patience=0.2), revive=revive
        )

    assert [r.verdict for r in report.results] == [Verdict.FAIL, Verdict.FAIL]
    assert len(revived) == 2


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="cannot be reached"):
        check(Options("http://127.0.0.1:9", timeout=1))
    with pytest.raises(Unreachable, match="no gRPC connection"):
        check(Options(None, "127.0.0.1:9", timeout=0.5))


def test_every_case_has_a_name_of_its_own_and_says_what_it_rests_on() -> None:
    cases = all_cases()

    assert len(cases) > 300
    assert len({case.name for case in cases}) == len(cases)
    assert [
        case.name for case in cases if case.basis is not Basis.SENSIBLE and not case.place
    ] == []
    assert {case.area for case in cases} == set(Area)
    assert all(case.title and not case.title.endswith(".") for case in cases)


def test_cases_are_chosen_by_name_or_area_and_hostile_ones_come_last() -> None:
    assert {case.area for case in chosen(all_cases(), "streaming")} == {Area.STREAMING}
    assert [case.name for case in chosen(all_cases(), "rest.i?")] == ["rest.id"]
    hostile = [case.hostile for case in chosen(all_cases(), "")]
    assert hostile == sorted(hostile)
    assert sum(hostile) > 10


def test_each_models_name_and_place_is_its_own() -> None:
    assert len({model.name for model in MODELS.values()}) == len(MODELS)
    assert all(model.needed_for for model in MODELS.values())
