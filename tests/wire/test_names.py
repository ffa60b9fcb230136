"""Resource names: what is written can be read again, and what is hostile is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.wire import names
from stellwerk.wire.errors import InvalidInput
from stellwerk.wire.names import ModelName

_IDS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", fullmatch=True).filter(
    lambda i: ".." not in i
)
_ALIASES = st.from_regex(r"[A-Za-z]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?", fullmatch=True)
_VERSIONS = st.integers(1, 10**18 - 1)

HOSTILE = [
    "",
    ".",
    "..",
    "../etc/passwd",
    "a/../b",
    "a..b",
    "a/b",
    "a\\b",
    "a b",
    "a\n",
    "a\x00",
    "a%2Fb",
    "a:b",
    "a?b",
    "a#b",
    "$where",
    "{$gt:1}",
    "'; drop",
    "a*",
    "-a",
    "a-",
    ".a",
    "_a",
    "ü",
    "a\u202eb",
    "ａ",
    "٣",
    "a" * 64,
    "a" * 1_000_000,
]


@given(_IDS, _IDS, _VERSIONS, _ALIASES)
def test_a_name_that_was_written_is_read_again(
    bucket: str, model: str, version: int, alias: str
) -> None:
    for name in (
        ModelName(bucket, model),
        ModelName(bucket, model, version=version),
        ModelName(bucket, model, alias=alias),
    ):
        assert names.parse_model(str(name)) == name
        assert names.bucket_of(str(name)) == bucket
        assert str(name).startswith(name.parent)
    assert names.parse_bucket(names.bucket_name(bucket)) == bucket


@given(st.text(max_size=80))
def test_whatever_is_accepted_is_read_back_unchanged(text: str) -> None:
    try:
        parsed = names.parse_model(text)
    except InvalidInput:
        return
    assert str(parsed) == text


@pytest.mark.parametrize("bad", HOSTILE)
def test_hostile_ids_are_refused_wherever_they_stand(bad: str) -> None:
    for name in (
        f"buckets/{bad}/models/m",
        f"buckets/b/models/{bad}",
        f"buckets/b/models/m/versions/{bad}",
        f"buckets/b/models/m/aliases/{bad}",
    ):
        with pytest.raises(InvalidInput):
            names.parse_model(name)
    for refuse in (
        names.bucket_name,
        lambda value: names.parse_single(f"runtimes/{value}", "runtimes", "runtime"),
    ):
        with pytest.raises(InvalidInput):
            refuse(bad)
    with pytest.raises(InvalidInput) as refused:
        names.parse_upload(f"buckets/b/models/m/uploads/{bad}")
    assert len(refused.value.message) < 200


@pytest.mark.parametrize(
    "name",
    [
        "",
        "buckets",
        "buckets/b",
        "models/m",
        "buckets/b/models",
        "buckets/b/models/m/versions",
        "buckets/b/models/m/version/1",
        "Buckets/b/models/m",
        "/buckets/b/models/m",
        "buckets/b/models/m/",
        "buckets/b/models/m/versions/1/extra",
        "buckets//models/m",
    ],
)
def test_names_of_another_form_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        names.parse_model(name)


@pytest.mark.parametrize("version", ["0", "-1", "+1", "01", "1.0", "1e3", "1" * 19, " 1", "٣", ""])
def test_a_version_is_a_whole_number_from_one(version: str) -> None:
    with pytest.raises(InvalidInput):
        names.check_version(version)


@pytest.mark.parametrize("alias", ["1st", "v1.2", "-x", "x-", "a/b", "latest ", "", "a" * 64])
def test_an_alias_begins_with_a_letter_and_is_never_a_version(alias: str) -> None:
    with pytest.raises(InvalidInput):
        names.check_alias(alias)


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("iris", "", ModelName("default", "iris")),
        ("team:iris", "", ModelName("team", "iris")),
        ("iris", "3", ModelName("default", "iris", version=3)),
        ("team:iris", "stable", ModelName("team", "iris", alias="stable")),
    ],
)
def test_inference_names_default_to_the_default_bucket(
    name: str, version: str, expected: ModelName
) -> None:
    assert names.parse_inference_name(name, version) == expected


@pytest.mark.parametrize("name", ["iris", "team:iris"])
def test_a_model_is_named_to_clients_as_they_name_it(name: str) -> None:
    assert names.inference_name(names.parse_inference_name(name, "3")) == name
    assert names.inference_name(names.parse_inference_name("default:iris")) == "iris"


@pytest.mark.parametrize(
    ("name", "version"), [(":iris", ""), ("a:b:c", ""), ("a:", ""), ("iris", "0"), ("x/y", "1")]
)
def test_hostile_inference_names_are_refused(name: str, version: str) -> None:
    with pytest.raises(InvalidInput):
        names.parse_inference_name(name, version)


@given(st.text(max_size=60))
def test_the_scope_of_any_text_is_a_bucket_or_nothing(text: str) -> None:
    bucket = names.bucket_of(text)

    assert bucket == "" or names.check_id(bucket, "bucket") == bucket or ".." in bucket
