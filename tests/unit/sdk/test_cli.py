"""The `stellwerk` command: what it prints, its exit codes, and that global options may stand
anywhere.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from stellwerk.client import connect
from stellwerk.client.cli.output import Output, size
from stellwerk.client.cli.root import app
from stellwerk.client.errors import InvalidInput
from stellwerk.client.packaging import estimator
from tests.unit.sdk.fake_platform import API_KEY, TOKEN, FakePlatform


class Cli:
    """Runs the command against one platform."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, *args: str, code: int = 0, token: str = TOKEN, stdin: str = "") -> Any:
        # Options of the environment must not leak in.
        environ = {"STELLWERK_URL": "", "STELLWERK_TOKEN": token, "TERM": "dumb"}
        result = CliRunner().invoke(app, ["--url", self.url, *args], env=environ, input=stdin)
        assert result.exit_code == code, (result.output, result.exception)
        return result


@pytest.fixture
def cli(http_url: str) -> Cli:
    return Cli(http_url)


@pytest.fixture
def stored(http_url: str, pipeline: Any) -> None:
    with connect(http_url, TOKEN) as client:
        client.models.put(pipeline, "iris", labels={"stage": "test"}, alias="production")


def test_a_file_is_stored_shown_called_and_got_back(
    cli: Cli, pipeline: Any, iris: Any, tmp_path: Path
) -> None:
    path = estimator.package(pipeline, tmp_path).path

    put = cli("models", "put", str(path), "iris", "--label", "stage=test", "--alias", "production")
    shown = cli("models", "show", "iris")
    cli("models", "get", "iris", str(tmp_path / "back.skops"))
    predicted = cli("predict", "iris", json.dumps(iris.data[:2].tolist()))

    assert put.stdout == "buckets/default/models/iris/versions/1\n"
    assert "predict_proba" in shown.stdout and "X: FP64[-1, 4]" in shown.stdout
    assert (tmp_path / "back.skops").read_bytes() == path.read_bytes()
    assert predicted.stdout == "0\n0\n"


def test_json_is_one_document_wherever_the_option_stands(cli: Cli, stored: None) -> None:
    before = cli("--json", "models", "list")
    after = cli("models", "list", "--json")

    assert before.stdout == after.stdout
    (model,) = json.loads(after.stdout)
    assert model["name"] == "buckets/default/models/iris"
    assert after.stderr == ""


@pytest.mark.parametrize("ending", [".npy", ".csv", ".json", "plain.csv", "-"])
def test_rows_come_from_files_and_standard_input(
    cli: Cli, stored: None, iris: Any, pipeline: Any, tmp_path: Path, ending: str
) -> None:
    path, rows = tmp_path / f"rows{ending}", iris.data[48:52]
    if ending == ".npy":
        np.save(path, rows)
    elif ending.endswith("csv"):
        header = "" if ending == "plain.csv" else "a,b,c,d"
        np.savetxt(path, rows, delimiter=",", header=header, comments="")
    else:
        path.write_text(json.dumps(rows.tolist()))
    source = "-" if ending == "-" else str(path)

    found = cli(
        "predict",
        "iris",
        "--input",
        source,
        "--json",
        stdin=path.read_text() if ending == "-" else "",
    )

    answer = json.loads(found.stdout)
    assert answer["predictions"] == pipeline.predict(rows).tolist()
    assert answer["model_version"] == "buckets/default/models/iris/versions/1"


def test_a_matrix_has_a_line_for_each_row(cli: Cli, stored: None) -> None:
    found = cli("predict", "iris", "[[5.1,3.5,1.4,0.2],[6,3,5,2]]", "--method", "predict_proba")

    assert [len(line.split()) for line in found.stdout.splitlines()] == [3, 3]


def test_an_error_is_one_sentence_and_exit_code_1(cli: Cli) -> None:
    plain = cli("models", "show", "nosuch", code=1)
    as_json = cli("models", "show", "nosuch", "--json", code=1)

    assert plain.stderr == "error: there is no model buckets/default/models/nosuch\n"
    described = json.loads(as_json.stderr)["error"]
    assert described["reason"] == "MODEL_NOT_FOUND"
    assert len(described["request_id"]) == 32
    assert plain.stdout == as_json.stdout == ""


@pytest.mark.parametrize(
    "args",
    [
        ("models", "put", "nosuch.skops"),
        ("predict", "iris"),
        ("predict", "iris", "not json"),
        ("predict", "iris", "3"),
        ("predict", "iris", "--input", "nosuch.csv"),
        ("nosuch",),
        ("models", "promote", "iris", "0"),
        ("models", "nosuch"),
        ("status", "--nosuch"),
        ("--nosuch",),
        ("status", "--timeout"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_said_in_json_where_that_is_wanted(
    cli: Cli, args: tuple[str, ...]
) -> None:
    told = cli(*args, code=2).stderr
    described = json.loads(cli("--json", *args, code=2).stderr)["error"]

    assert described["reason"] == "USAGE"
    assert described["message"].strip() in told


def test_for_programs_a_missing_command_is_one_sentence_and_nothing_is_asked(cli: Cli) -> None:
    drop = ("models", "drop", "iris")
    for args, sentence in ((("models",), "Missing command."), (drop, "--json nothing is asked")):
        told = cli("--json", *args, code=2, stdin="y\n").stderr
        assert sentence in json.loads(told)["error"]["message"]


def test_an_array_file_with_objects_in_it_is_refused(
    cli: Cli, stored: None, tmp_path: Path
) -> None:
    np.save(tmp_path / "hostile.npy", np.array([object()], dtype=object), allow_pickle=True)

    assert (
        "cannot be read"
        in cli("predict", "iris", "--input", str(tmp_path / "hostile.npy"), code=2).stderr
    )


def test_aliases_are_moved_and_models_deleted_only_when_said(
    cli: Cli, stored: None, platform: FakePlatform
) -> None:
    assert (
        cli("models", "promote", "iris", "1", "--alias", "default").stdout
        == "iris: default is version 1\n"
    )
    cli("models", "drop", "iris", code=1, stdin="n\n")
    assert "--yes deletes without asking" in cli("models", "drop", "iris", code=2, stdin="").stderr
    assert platform.versions

    cli("models", "drop", "iris", "--yes")

    assert not platform.versions


def test_status_tells_the_reason_and_exits_1_when_not_ready(cli: Cli) -> None:
    found = cli("status", code=1)

    assert "NOT ready" in found.stdout and "every runtime is draining" in found.stdout
    assert re.search(r"runtime +a +draining", found.stdout)


def test_runtimes_audit_and_whoami_print_something(cli: Cli) -> None:
    assert "RUNTIME" in cli("runtimes").stdout
    assert cli("audit", "verify").stdout == "intact: 3 records; the last is 3 ab\n"
    assert "principals/anna" in cli("token", "whoami").stdout


def test_an_api_key_is_exchanged_on_demand(cli: Cli) -> None:
    assert cli("token", "issue", token=API_KEY).stdout == f"{TOKEN}\n"


def test_a_wrong_token_is_an_error_that_names_its_variable(cli: Cli) -> None:
    assert cli("models", "list", code=1, token="wrong").stderr == (
        "error: the platform refuses the token from the variable STELLWERK_TOKEN: a valid bearer"
        " token is needed\n"
    )
    assert "from the argument --token: " in cli("models", "list", "--token", "x", code=1).stderr


def test_a_missing_token_is_an_error_that_says_how_to_give_one(cli: Cli) -> None:
    assert cli("models", "list", code=1, token="").stderr == (
        "error: no token was given; give --token, STELLWERK_TOKEN or STELLWERK_TOKEN_FILE;"
        " without --url the platform on this machine is found together with its token\n"
    )


def test_a_platform_on_this_machine_is_named_by_its_data_directory(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    ready = {"http": cli.url, "token_file": str(tmp_path / "token")}
    (tmp_path / "ready.json").write_text(json.dumps(ready))
    words = ["models", "list", "--data-dir", str(tmp_path)]
    environ = {"STELLWERK_URL": "http://127.0.0.1:9", "STELLWERK_TOKEN": "another's"}

    found = CliRunner().invoke(app, words, env=environ)
    both = CliRunner().invoke(app, ["--url", cli.url, *words], env=environ)

    assert (found.exit_code, found.stdout) == (0, "no models in bucket default\n")
    assert (both.exit_code, both.stderr) == (1, "error: give --url or --data-dir, not both\n")


def test_a_global_option_without_its_value_is_told(cli: Cli) -> None:
    for name in ("--url", "--data-dir", "--token", "--bucket", "--timeout"):
        told = cli("models", "list", name, code=2).stderr
        assert f"Option '{name}' requires an argument." in told


@pytest.mark.parametrize("command", ["up", "local", "conformance"])
def test_a_global_option_before_a_command_that_would_not_see_it_is_refused(command: str) -> None:
    for name, value in (("--data-dir", "/tmp"), ("--timeout", "5")):
        words = [name, value, command, "--data-dir", "/tmp", "--help"]

        refused = CliRunner().invoke(app, words, env={})

        assert refused.exit_code == 2
        assert f"write {name} after {command}" in refused.stderr


def test_rows_that_are_no_json_are_told_with_the_place_they_came_from(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "rows.json").write_text("[[1,")

    typed = cli("predict", "iris", "[[1,", code=2).stderr
    read = cli("predict", "iris", "--input", str(tmp_path / "rows.json"), code=2).stderr
    both = cli("predict", "iris", "[[1]]", "--input", "rows.json", code=2).stderr

    assert "Invalid value for ROWS: this is not JSON; write it like [[5.1, 3.5]]: " in typed
    assert f"Invalid value for --input {tmp_path / 'rows.json'}: this is not JSON" in read
    assert "not both" in both


@pytest.mark.parametrize(
    "text", ["Not Found, url='http://files/x'", "url=http://files/x", "GET /x?url=abc", "a.token="]
)
def test_what_only_looks_like_an_argument_is_printed_as_it_is(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Output(json_wanted=False).error(InvalidInput(text))

    assert capsys.readouterr().err == f"error: {text}\n"


def test_what_the_sdk_calls_an_argument_the_command_calls_an_option(
    cli: Cli, tmp_path: Path
) -> None:
    for name in ("README.md", "model.pkl"):
        (tmp_path / name).write_text("x")

    unknown = cli("models", "put", str(tmp_path / "README.md"), "x", code=1).stderr
    unsafe = cli("models", "put", str(tmp_path / "model.pkl"), "x", "--format", "pickle", code=1)

    assert unknown == "error: the ending of README.md tells no format; give --format\n"
    assert unsafe.stderr.endswith("or say --format pickle, --unsafe\n")


@pytest.mark.parametrize("package", ["services", "services/local"])
def test_a_package_that_hides_the_platforms_is_named(package: str, tmp_path: Path) -> None:
    for folder in ("services", package):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "__init__.py").touch()
    path = ":".join([str(tmp_path), *sys.path])
    command = [sys.executable, "-P", "-c", "from stellwerk.client.cli import root; root.main()"]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environ = _environ() | {"PYTHONPATH": path}
        return subprocess.run([*command, *words], capture_output=True, text=True, env=environ)

    up, shown = run("up"), run("--help")

    assert up.returncode == 1
    assert up.stderr == (
        f"Error: the package `services` at {tmp_path}/services hides the platform's; take"
        f" {tmp_path} off PYTHONPATH, or start elsewhere\n"
    )
    assert shown.returncode == 0 and "Run the whole platform on this machine." in shown.stdout


@pytest.mark.parametrize("command", [(), ("up",), ("local",), ("models", "put"), ("conformance",)])
def test_every_command_takes_h_for_help(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "-h"])

    assert result.exit_code == 0 and "--help" in result.output


def test_the_token_is_never_printed(cli: Cli, stored: None) -> None:
    for args in [("--help",), ("models", "list"), ("models", "show", "nosuch")]:
        result = cli(*args, code=1 if "nosuch" in args else 0)
        assert TOKEN not in result.output


def complete(words: str, url: str) -> str:
    environ = {
        "_STELLWERK_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "STELLWERK_URL": url,
        "STELLWERK_TOKEN": TOKEN,
    }
    result = CliRunner().invoke(app, [], env=environ, prog_name="stellwerk")
    # bash is told a kind and a word: "plain,models".
    return " ".join(line.partition(",")[2] for line in result.stdout.splitlines())


def test_commands_and_model_names_are_completed(
    http_url: str, stored: None, unused_tcp_port: int
) -> None:
    assert complete("stellwerk mod", http_url).split() == ["models"]
    assert complete("stellwerk models show ir", http_url).split() == ["iris"]
    assert complete("stellwerk models show ir", f"http://127.0.0.1:{unused_tcp_port}").strip() == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_for_each_shell(shell: str, tmp_path: Path) -> None:
    environ = _environ() | {"HOME": str(tmp_path)}
    command = [sys.executable, "-c", "from stellwerk.client.cli import root; root.main()"]

    shown = subprocess.run(
        [*command, "--show-completion", shell], capture_output=True, text=True, env=environ
    )
    subprocess.run(
        [*command, "--install-completion", shell], capture_output=True, check=True, env=environ
    )

    assert "_STELLWERK_COMPLETE" in shown.stdout
    assert any(
        "_STELLWERK_COMPLETE" in file.read_text() for file in tmp_path.rglob("*") if file.is_file()
    )


def test_help_needs_no_heavy_library() -> None:
    heavy = "('numpy', 'pandas', 'sklearn', 'aiohttp', 'urllib3')"
    code = (
        f"import sys, stellwerk.client.cli.root; print([name for name in {heavy} if name in"
        " sys.modules])"
    )

    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environ()
    )

    assert found.stdout == "[]\n"


def test_the_command_says_its_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("stellwerk ")


def test_the_platforms_own_options_are_left_to_up() -> None:
    result = CliRunner().invoke(app, ["up", "--help"])

    assert "--runtimes" in result.output and "--data-dir" in result.output


def test_help_lists_the_platforms_commands() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout

    assert "Run the whole platform on this machine." in shown


def test_sizes_are_written_for_people() -> None:
    assert [size(n) for n in (0, 1023, 1536, 5 << 20, 3 << 50)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 MiB",
        "3072.0 TiB",
    ]


def _environ() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path), "PATH": ""}
