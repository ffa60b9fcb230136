"""The logs of `stellwerk up`: what is shown, what files keep, and the last words of a process."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.local.processes.logs import LogFile, Logs, cause


def test_on_a_terminal_a_line_is_laid_out_with_its_service_in_front() -> None:
    sink = io.StringIO()
    record = {
        "service": "router",
        "event": "rpc",
        "level": "error",
        "timestamp": "2026-01-02T03:04:05.678Z",
        "code": 5,
    }

    Logs(sink, terminal=True, verbose=True).lines("router", json.dumps(record).encode())

    text = sink.getvalue()
    assert text.count("\n") == 1
    for part in ("router ", "03:04:05.678", "error", "rpc", "code=", "5"):
        assert part in text


@given(
    st.text(
        alphabet=st.characters(blacklist_characters="\n\r", blacklist_categories=["Cs"])
    ).filter(str.strip)
)
def test_off_a_terminal_any_line_comes_out_as_one_json_object(text: str) -> None:
    sink = io.StringIO(newline="\n")

    Logs(sink, terminal=False, verbose=True).lines("router", text.encode())

    assert isinstance(json.loads(sink.getvalue()), dict)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["frames", "exc_type", "exc_value", "filename", "lineno", "name"]),
            inner,
        )
    ),
    max_leaves=8,
)


@given(
    fields=st.dictionaries(
        st.sampled_from(["service", "level", "event", "timestamp", "message", "exception", "x"]),
        JSON,
    ),
    terminal=st.booleans(),
    verbose=st.booleans(),
)
def test_whatever_a_record_holds_an_error_is_shown(
    fields: dict[str, Any], terminal: bool, verbose: bool
) -> None:
    sink = io.StringIO()

    Logs(sink, terminal=terminal, verbose=verbose).lines(
        "router", json.dumps({**fields, "level": "error"}).encode()
    )

    assert sink.getvalue()


@pytest.mark.parametrize("verbose", [False, True])
def test_lines_that_no_reader_expects_stop_nothing(verbose: bool) -> None:
    deep = '{"level": "error", "x": ' + "[" * 100_000 + "]" * 100_000 + "}"
    long = '{"level": "error", "x": ' + "9" * 5_000 + "}"
    sink = io.StringIO()

    Logs(sink, terminal=False, verbose=verbose).lines(
        "router",
        "\n".join(
            [deep, long, '["error"]', "error \0", "", '{"level": "error", "event": "after"}']
        ).encode(),
    )

    assert "after" in sink.getvalue().splitlines()[-1]


@pytest.mark.parametrize("problem", [BrokenPipeError, OSError(28, "No space left on device")])
def test_a_standard_error_that_takes_nothing_stops_nothing(problem: Any) -> None:
    class Gone(io.StringIO):
        def write(self, text: str, /) -> int:
            raise problem

    logs = Logs(Gone(), terminal=False, verbose=True)

    logs.say("ready")
    logs.lines("router", b'{"level": "error"}')


def test_a_line_that_does_not_say_who_wrote_it_is_told_whose_it_is() -> None:
    sink = io.StringIO()

    Logs(sink, terminal=False, verbose=True).lines("router", b'{"event": "broker connected"}')

    assert json.loads(sink.getvalue()) == {"service": "router", "event": "broker connected"}


@given(st.lists(st.text(alphabet="ab", max_size=30), max_size=40))
def test_a_log_file_and_its_older_ones_are_bounded_and_keep_the_newest_lines(
    lines: list[str],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = LogFile(Path(folder) / "router.log", limit=64)
        for line in lines:
            file.write(f"{line}\n".encode())

        kept = [Path(folder) / name for name in ("router.log.2", "router.log.1", "router.log")]
        texts = [path.read_text() for path in kept if path.exists()]
        assert all(len(text) <= 64 for text in texts)
        assert set(Path(folder).iterdir()) <= set(kept)
        assert "".join(f"{line}\n" for line in lines).endswith("".join(texts))
        assert not lines or texts[-1].endswith(f"{lines[-1]}\n")


def test_a_log_file_goes_on_where_an_earlier_start_ended(tmp_path: Path) -> None:
    LogFile(tmp_path / "router.log").write(b"first\n")
    LogFile(tmp_path / "router.log").write(b"second\n")

    assert (tmp_path / "router.log").read_text() == "first\nsecond\n"


def test_a_log_file_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    LogFile(tmp_path / "gone" / "router.log").write(b"a line\n")


def test_where_little_is_shown_errors_are(tmp_path: Path) -> None:
    sink = io.StringIO()
    logs = Logs(sink, terminal=False, verbose=False)
    logs.keep_in(tmp_path)

    for level in ("debug", "info", "warning", "error"):
        line = json.dumps({"event": f"said_{level}", "level": level})
        logs.lines("router", f"{line}\n".encode())
    logs.lines("router", b"not JSON\n")

    assert "said_error" in sink.getvalue() and sink.getvalue().count("\n") == 1
    assert len((tmp_path / "router.log").read_text().splitlines()) == 5


def test_the_last_words_of_a_process_are_its_errors_or_what_it_printed() -> None:
    refusal = {"event": "setting_unusable", "level": "error", "variable": "X", "problem": "is 3"}
    noise = json.dumps({"event": "started", "level": "info"})

    assert cause(f"{noise}\nprinted\n{json.dumps(refusal)}\n".encode()) == "X: is 3"
    assert cause(f"{noise}\na\n\n b \n".encode()) == "a; b"
    assert cause(f"{noise}\n".encode()) == ""
