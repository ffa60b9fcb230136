"""The table of figures: each can be chosen by name, and each knows its target."""

from __future__ import annotations

from benchmarks import __main__ as command
from benchmarks import figures
from benchmarks.run import FIGURES


def test_each_figure_can_be_chosen_by_its_number() -> None:
    measured = {
        one.id.rstrip("ab") for one in vars(figures).values() if isinstance(one, figures.Figure)
    }

    # B8 counts loads, B16 is read off B2.
    assert measured | {"B8"} == set(FIGURES)


def test_a_name_means_one_thing() -> None:
    assert not set(FIGURES) & set(command.APART)


def test_an_aim_is_beyond_the_target() -> None:
    for one in vars(figures).values():
        if isinstance(one, figures.Figure) and one.aim is not None:
            assert (one.aim > one.target) == (one.better == "higher")
