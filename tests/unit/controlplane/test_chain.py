"""The hash chain: whatever is done to it afterwards, the first number that no longer fits is
named.
"""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.controlplane.audit.chain import (
    GENESIS,
    Entry,
    Head,
    canonical,
    extend,
    hash_of,
    verify,
)

_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
_entries = st.lists(
    st.builds(
        Entry,
        sequence=st.just(0),
        time_ms=st.integers(0, 2**42),
        kind=st.integers(1, 3),
        principal=_text,
        method=_text,
        resource=_text,
        request_id=_text,
        service=_text,
        outcome=_text,
        count=st.integers(1, 2**32 - 1),
        peer=_text,
    ),
    min_size=2,
    max_size=12,
)
_content = [
    field.name for field in fields(Entry) if field.name not in ("sequence", "hash", "previous_hash")
]


def _chain(entries: list[Entry]) -> list[Entry]:
    return extend(Head(), entries)


@given(_entries)
def test_an_untouched_chain_is_intact(entries: list[Entry]) -> None:
    chain = _chain(entries)

    finding = verify(chain, [Head(chain[-1].sequence, chain[-1].hash)])

    assert finding.intact and finding.checked == len(entries) and finding.first_bad_sequence == 0
    assert finding.last == Head(len(entries), chain[-1].hash)


@given(_entries, st.data())
def test_an_edited_record_is_named(entries: list[Entry], data: st.DataObject) -> None:
    chain = _chain(entries)
    at = data.draw(st.integers(0, len(chain) - 1))
    name = data.draw(st.sampled_from(_content))
    old = getattr(chain[at], name)
    chain[at] = replace(chain[at], **{name: old + "x" if isinstance(old, str) else old + 1})

    finding = verify(chain)

    assert (
        not finding.intact and finding.first_bad_sequence == at + 1 and "changed" in finding.problem
    )


@given(_entries, st.data())
def test_an_edited_record_with_a_new_hash_breaks_the_one_after_it(
    entries: list[Entry], data: st.DataObject
) -> None:
    chain = _chain(entries)
    at = data.draw(st.integers(0, len(chain) - 2))
    forged = replace(chain[at], outcome=chain[at].outcome + "x")
    chain[at] = replace(forged, hash=hash_of(forged))

    finding = verify(chain)

    assert not finding.intact and finding.first_bad_sequence == at + 2


@given(_entries, st.data())
def test_a_deleted_record_is_named(entries: list[Entry], data: st.DataObject) -> None:
    chain = _chain(entries)
    at = data.draw(st.integers(0, len(chain) - 2))
    del chain[at]

    finding = verify(chain)

    assert (
        not finding.intact and finding.first_bad_sequence == at + 1 and "missing" in finding.problem
    )


@given(_entries, st.data())
def test_two_records_that_changed_places_are_named(
    entries: list[Entry], data: st.DataObject
) -> None:
    chain = _chain(entries)
    first = data.draw(st.integers(0, len(chain) - 2))
    second = data.draw(st.integers(first + 1, len(chain) - 1))
    # In a database the number is the place: what moves is everything else.
    one, other = chain[first], chain[second]
    chain[first], chain[second] = (
        replace(other, sequence=one.sequence),
        replace(one, sequence=other.sequence),
    )

    finding = verify(chain)

    assert not finding.intact and finding.first_bad_sequence == first + 1


@given(_entries, st.data())
def test_an_inserted_record_is_named(entries: list[Entry], data: st.DataObject) -> None:
    chain = _chain(entries)
    at = data.draw(st.integers(0, len(chain) - 1))
    forged = replace(chain[at], outcome="OK", principal="principals/mallory", hash="")
    chain.insert(at, replace(forged, hash=hash_of(forged)))

    finding = verify(chain)

    assert not finding.intact and finding.first_bad_sequence in (at + 1, at + 2)


@given(_entries, st.data())
def test_a_cut_off_end_shows_against_an_anchor(entries: list[Entry], data: st.DataObject) -> None:
    chain = _chain(entries)
    kept = data.draw(st.integers(0, len(chain) - 1))
    anchor = Head(chain[-1].sequence, chain[-1].hash)

    finding = verify(chain[:kept], [anchor])

    assert (
        not finding.intact
        and finding.first_bad_sequence == kept + 1
        and "missing" in finding.problem
    )
    assert verify(chain[:kept]).intact  # without the anchor nobody could know


@given(_entries, st.data())
def test_a_ledger_written_anew_shows_against_an_anchor(
    entries: list[Entry], data: st.DataObject
) -> None:
    chain = _chain(entries)
    at = data.draw(st.integers(0, len(chain) - 1))
    forged = _chain(
        [*chain[:at], replace(chain[at], principal="principals/nobody"), *chain[at + 1 :]]
    )

    finding = verify(forged, [Head(chain[-1].sequence, chain[-1].hash)])

    assert finding.intact == (chain[at].principal == "principals/nobody")
    assert finding.intact or finding.first_bad_sequence == len(chain)


@given(_entries, _entries)
def test_a_chain_goes_on_where_it_ended(first: list[Entry], second: list[Entry]) -> None:
    chain = _chain(first)
    chain += extend(Head(chain[-1].sequence, chain[-1].hash), second)

    assert verify(chain).intact
    assert chain == _chain([*first, *second])


@given(_text, _text)
def test_fields_do_not_run_into_each_other(one: str, other: str) -> None:
    entry = Entry(1, 0, 1, one, other, "", "", "", "", 1, "")
    joined = replace(entry, principal=one + other, method="")

    assert (canonical(entry) == canonical(joined)) == (other == "")


@pytest.mark.parametrize("value", [None, b"bytes", 1.0, True, ["a"]])
def test_a_value_of_another_type_is_a_change(value: object) -> None:
    chain = _chain([Entry(0, 1, 1, "p", "m", "r", "", "s", "OK", 1, "")])
    chain[0] = replace(chain[0], count=value)  # type: ignore[arg-type]

    assert verify(chain).first_bad_sequence == 1


def test_an_empty_ledger_is_intact() -> None:
    assert verify([]).intact
    assert verify([]).last == Head(0, GENESIS)
