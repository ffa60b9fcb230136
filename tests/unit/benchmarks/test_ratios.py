"""The statistics of the benchmarks: ratios of pairs, their median, and when a difference is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ratios import compare, met, pair_ratios, percentile

speeds = st.floats(min_value=0.001, max_value=1e6)


def test_a_ratio_is_ours_over_theirs_pair_by_pair() -> None:
    assert pair_ratios([2, 9], [1, 3]) == [2, 3]


def test_the_median_of_ratios_is_not_the_ratio_of_medians() -> None:
    comparison = compare([10, 100, 30], [10, 50, 10])

    assert comparison.ratio == 2
    assert (comparison.lowest, comparison.highest, comparison.pairs) == (1, 3, 3)


@given(st.lists(st.tuples(speeds, st.floats(min_value=0.1, max_value=10)), min_size=1))
def test_noise_that_both_of_a_pair_suffer_does_not_show(pairs: list[tuple[float, float]]) -> None:
    theirs = [speed * noise for speed, noise in pairs]
    ours = [3 * value for value in theirs]

    assert compare(ours, theirs).ratio == pytest.approx(3)


@given(st.lists(st.tuples(speeds, speeds), min_size=1))
def test_swapping_the_sides_turns_the_verdict(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    turned = {"higher": "lower", "lower": "higher", "no difference": "no difference"}
    there, back = compare(ours, theirs), compare(theirs, ours)

    assert (there.lowest, there.highest) == pytest.approx((1 / back.highest, 1 / back.lowest))
    if len(pairs) % 2 and not 0.86 < there.ratio < 1.16:
        assert there.verdict == turned[back.verdict]


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ([2, 2, 2, 2, 2, 2, 2], "higher"),
        ([2, 2, 2, 2, 2, 2, 0.9], "higher"),
        ([2, 2, 2, 2, 2, 0.9, 0.9], "no difference"),
        ([1.1] * 7, "no difference"),
        ([0.9] * 7, "no difference"),
        ([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1.1], "lower"),
    ],
)
def test_a_difference_needs_size_and_agreement(ours: list[float], verdict: str) -> None:
    assert compare(ours, [1] * 7).verdict == verdict


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([], []),
        ([1], []),
        ([1, 2], [1]),
        ([1], [0]),
        ([0], [1]),
        ([-1], [1]),
        ([float("nan")], [1]),
        ([float("inf")], [1]),
    ],
)
def test_what_makes_no_ratio_is_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError):
        compare(ours, theirs)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(1, 101)]

    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile(values, 1.0) == 100
    assert percentile([7.0], 0.01) == 7


def test_too_few_values_have_no_percentile() -> None:
    assert percentile([1.0] * 999, 0.99, needed=1000) is None
    assert percentile([], 0.5) is None


@given(st.lists(speeds, min_size=1), st.floats(min_value=0, max_value=1))
def test_a_share_of_the_values_is_no_larger_than_the_percentile(
    values: list[float], share: float
) -> None:
    found = percentile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_a_target_is_met_from_the_side_that_is_better() -> None:
    assert met(6, 6, "higher")
    assert not met(5.9, 6, "higher")
    assert met(2, 2, "lower")
    assert not met(2.1, 2, "lower")
