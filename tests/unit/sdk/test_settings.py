"""Which platform is meant: arguments, then the environment, then the one that runs here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stellwerk.client.errors import InvalidInput, Unauthenticated, Unavailable
from stellwerk.client.resources.requirements import byte_size, requirements
from stellwerk.client.settings import resolve


def test_arguments_come_before_the_environment() -> None:
    environ = {"STELLWERK_URL": "http://there:1", "STELLWERK_TOKEN": "env"}

    assert resolve("grpc://here:2", "arg", None, environ).url == "grpc://here:2"
    assert resolve(None, None, None, environ).token == "env"


def test_a_token_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")

    assert (
        resolve("http://x", None, None, {"STELLWERK_TOKEN_FILE": str(tmp_path / "token")}).token
        == "abc"
    )
    with pytest.raises(InvalidInput, match="nosuch"):
        resolve("http://x", None, None, {"STELLWERK_TOKEN_FILE": str(tmp_path / "nosuch")})


def test_the_platform_that_runs_here_is_found(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("local-token")
    ready = {
        "http": "http://127.0.0.1:8080",
        "grpc": "127.0.0.1:8081",
        "token_file": str(tmp_path / "token"),
    }
    (tmp_path / "ready.json").write_text(json.dumps(ready))

    found = resolve(None, None, None, {}, tmp_path)

    assert (found.url, found.token) == ("http://127.0.0.1:8080", "local-token")
    assert resolve(None, "own", None, {}, tmp_path).token == "own"


def test_a_token_is_known_by_the_place_it_was_found_in(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("abc")
    ready = {"http": "http://127.0.0.1:8080", "token_file": str(token)}
    (tmp_path / "ready.json").write_text(json.dumps(ready))
    file = {"STELLWERK_TOKEN_FILE": str(token)}

    found = [
        resolve("http://x", "arg", None, file | {"STELLWERK_TOKEN": "env"}),
        resolve("http://x", None, None, file | {"STELLWERK_TOKEN": "env"}),
        resolve("http://x", None, None, file),
        resolve(None, None, None, {}, tmp_path),
        resolve("http://x", None, None, {}),
    ]

    assert [endpoint.token_source for endpoint in found] == [
        "the argument token=",
        "the variable STELLWERK_TOKEN",
        f"the file {token} (STELLWERK_TOKEN_FILE)",
        f"the file {token}",
        "",
    ]


def test_the_local_token_is_never_sent_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("local-token")
    ready = {"http": "http://127.0.0.1:8080", "token_file": str(tmp_path / "token")}
    (tmp_path / "ready.json").write_text(json.dumps(ready))

    environ = {"STELLWERK_DATA_DIR": str(tmp_path)}

    assert resolve("https://elsewhere", None, None, environ).token is None


def test_the_platform_of_another_data_directory_is_found_by_variable_and_by_argument(
    tmp_path: Path,
) -> None:
    for name in ("variable", "argument"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ready.json").write_text(json.dumps({"http": f"http://{name}:1"}))
    environ = {"STELLWERK_DATA_DIR": str(tmp_path / "variable")}

    assert resolve(None, None, None, environ).url == "http://variable:1"
    assert resolve(None, None, None, environ, tmp_path / "argument").url == "http://argument:1"
    # What a caller writes comes before what the environment says.
    environ["STELLWERK_URL"] = "http://elsewhere:1"
    assert resolve(None, None, None, environ, tmp_path / "argument").url == "http://argument:1"


def test_the_token_of_a_data_directory_comes_before_the_environments(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("its-own")
    ready = {"http": "http://127.0.0.1:8080", "token_file": str(tmp_path / "token")}
    (tmp_path / "ready.json").write_text(json.dumps(ready))
    others = {"STELLWERK_TOKEN": "another", "STELLWERK_TOKEN_FILE": "/no/file"}

    assert resolve(None, None, None, others, tmp_path).token == "its-own"
    assert resolve(None, "given", None, others, tmp_path).token == "given"
    # Both are of the environment.
    found = resolve(None, None, None, {**others, "STELLWERK_DATA_DIR": str(tmp_path)})
    assert found.token == "another"


@pytest.mark.parametrize("data_dir", ["", " ", "~no-such-user/x"])
def test_a_data_directory_that_names_no_folder_is_refused(data_dir: str) -> None:
    with pytest.raises(InvalidInput, match="directory"):
        resolve(None, None, None, {}, data_dir)


def test_a_url_and_a_data_directory_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not both"):
        resolve("http://x", None, None, {}, tmp_path)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"grpc": "127.0.0.1:1"}'])
def test_no_platform_at_all_is_told_in_one_sentence_with_what_to_give(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "ready.json").write_text(content)

    with pytest.raises(Unavailable) as caught:
        resolve(None, None, None, {}, tmp_path)

    assert caught.value.message == (
        f"no platform runs from {tmp_path}; start one with `stellwerk up --data-dir {tmp_path}`, or"
        " give url= and token= (STELLWERK_URL, STELLWERK_TOKEN), or data_dir= of one that runs on"
        " this machine (STELLWERK_DATA_DIR)"
    )


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "ftp://x", "http://", "grpc:/x", "file:///etc/passwd"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="address"):
        resolve(url, None, None, {})


def test_an_authority_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")

    for path in (tmp_path / "ca.pem", tmp_path / "nosuch.pem"):
        with pytest.raises(InvalidInput, match="certificates"):
            resolve("https://x", None, path, {})


@pytest.mark.parametrize("token", ["a b", "a\nb", "tökén"])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(Unauthenticated):
        resolve("http://x", token, None, {})


def test_sizes_are_read_as_people_write_them() -> None:
    assert [byte_size(text) for text in ("2GiB", "500MB", "1.5 KiB", "7", "1T", 9)] == [
        2 << 30,
        500_000_000,
        1536,
        7,
        10**12,
        9,
    ]
    for text in ["", "GiB", "-1", "2 potatoes"]:
        with pytest.raises(InvalidInput):
            byte_size(text)


def test_requirements_are_what_was_said() -> None:
    found = requirements(
        gpu=2, accelerator_memory="8GiB", label="west", frameworks=["torch"], cpu=4
    )

    assert (found.accelerator_count, found.accelerator_kind) == (2, "cuda")
    assert found.accelerator_memory_bytes == 8 << 30
    assert dict(found.labels) == {"west": "true"}
    assert dict(found.frameworks) == {"torch": ""}
    assert not requirements().ByteSize()
