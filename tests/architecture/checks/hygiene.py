"""Constructs with no place in the code: what runs foreign code, trusts blindly or goes wrong by
design, and tests that sleep or patch.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.checks.tree import Module, called, imports, modules

GUARDED = ("services", "sdk", "demo", "tools", "benchmarks")
# Formats that run code live here, behind a permission and a flag, in a child process; packaging
# writes what they read.
FORMAT_HOMES = ("services/runtime/formats/", "sdk/stellwerk/client/packaging/")
RUNS_CODE_WHEN_READ = ("pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal")
_FAULTS = "tests/contract/test_broker_faults.py"
BANNED_CALLS = {
    "eval": "eval runs text as code",
    "exec": "exec runs text as code",
    "os.system": "os.system runs a shell",
    "torch.load": "torch.load unpickles",
    "yaml.load": "yaml.load builds any object; use safe_load",
    "tempfile.mktemp": "mktemp races; use mkstemp",
    "asyncio.wait_for": "wait_for can lose a cancellation in Python 3.11; use asyncio.timeout",
}
BANNED_METHODS = {"extractall": "extractall writes wherever the archive says"}
BANNED_ARGUMENTS = {
    ("shell", True): "shell=True runs a shell",
    ("verify", False): "verify=False trusts any certificate",
    ("allow_pickle", True): "allow_pickle=True unpickles",
}
# path::function → why it may sleep: what it waits for announces itself by nothing, or must not
# come.
ALLOWED_SLEEPS = {
    "tests/fakes/guarded_repository.py::GetModel": "plays a slow service",
    "tests/fakes/repository_server.py::process_idle": (
        "is polled itself; between two looks something may start"
    ),
    "tests/contract/test_broker.py::test_an_expired_message_is_never_delivered": (
        "time is what expires a message"
    ),
    "tests/contract/test_broker.py::test_a_consumer_never_holds_more_than_its_prefetch": (
        "nothing more must come"
    ),
    f"{_FAULTS}::test_a_publish_on_the_way_when_the_connection_is_lost_fails_in_time": (
        "a frozen network tells nothing"
    ),
    f"{_FAULTS}::test_after_a_crash_of_the_broker_everything_comes_back": (
        "patience must run out first"
    ),
    f"{_FAULTS}::test_a_broker_may_come_up_later_than_its_users": ("attempts must fail first"),
    "tests/fakes/upstreams.py::_all": "grpc.aio tells of a cancelled stream a moment late",
    "tests/journey/test_faults.py::test_no_call_hangs_when_a_runtime_is_killed_in_flight": (
        "calls must be under way"
    ),
    "tests/journey/probe.py::predict": "plays a model that takes its time",
}
# Seconds; no test waits that long.
FOR_EVER = 10
SLEEPS = ("time.sleep", "asyncio.sleep")
# Calls by which a loop knows that its time is over.
CLOCKS = ("monotonic", ".time", "asyncio.timeout", "asyncio.wait_for")


def dangerous(root: Path) -> list[str]:
    """Constructs that run foreign code, switch a check off or go wrong by design, outside the
    sandboxed formats.
    """
    found = []
    for module in modules(root, GUARDED):
        if not module.matches(*FORMAT_HOMES):
            found += _imports_that_run_code(module)
            found += [
                module.at(node, why) for node in ast.walk(module.tree) if (why := _danger(node))
            ]
    return found


def _imports_that_run_code(module: Module) -> list[str]:
    return [
        module.at(wanted.line, f"{wanted.target.split('.')[0]} runs code when it reads")
        for wanted in imports(module)
        if wanted.within(*RUNS_CODE_WHEN_READ)
    ]


def _danger(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    for word in node.keywords:
        value = word.value.value if isinstance(word.value, ast.Constant) else None
        if isinstance(value, bool) and (word.arg, value) in BANNED_ARGUMENTS:
            return BANNED_ARGUMENTS[str(word.arg), value]
    name = called(node)
    return BANNED_CALLS.get(name) or BANNED_METHODS.get(name.rpartition(".")[2], "")


def sleeps(root: Path) -> list[str]:
    """Tests that sleep instead of waiting for what they expect.

    Polling may sleep: in a loop that asserts something each time round, or in one of a function
    that looks at a clock. `sleep(0)` lets others run, and a sleep longer than any test waits plays
    somebody who never answers.
    """
    found = []
    for module in modules(root, ("tests",)):
        bare = any(wanted.target in SLEEPS for wanted in imports(module))
        excused = {
            id(node) for function in ast.walk(module.tree) for node in _excused(module, function)
        }
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and id(node) not in excused and _sleeps(node, bare):
                found.append(module.at(node, "wait for what the test expects instead of sleeping"))
    return found


def _sleeps(sleep: ast.Call, bare: bool) -> bool:
    """Whether it is a sleep, under its bare name or not, of a length that a test could wait for."""
    if called(sleep) not in SLEEPS and not (bare and called(sleep) == "sleep"):
        return False
    seconds = (
        sleep.args[0].value if sleep.args and isinstance(sleep.args[0], ast.Constant) else None
    )
    return not isinstance(seconds, int | float) or 0 < seconds < FOR_EVER


def _excused(module: Module, function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of loops that end in time, and all of a function that is named above."""
    if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
        calls = {called(node) for node in ast.walk(function) if isinstance(node, ast.Call)}
        if f"{module.path}::{function.name}" in ALLOWED_SLEEPS:
            yield from ast.walk(function)
        for loop in ast.walk(function):
            if isinstance(loop, ast.While | ast.For | ast.AsyncFor):
                asserts = isinstance(loop, ast.While) and any(
                    isinstance(node, ast.Assert) for node in loop.body
                )
                if asserts or any(name.endswith(CLOCKS) for name in calls):
                    yield from ast.walk(loop)


def lapsed_sleeps(root: Path) -> list[str]:
    """Entries of ALLOWED_SLEEPS that name no function of the tests any more."""
    functions = {
        f"{module.path}::{node.name}"
        for module in modules(root, ("tests",))
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return [
        f"{name}: is allowed to sleep and does not exist"
        for name in ALLOWED_SLEEPS
        if name not in functions
    ]


def patches(root: Path) -> list[str]:
    """Tests that replace parts of the code under test; they use the fakes of tests/fakes
    instead.
    """
    found = []
    for module in modules(root, ("tests",)):
        lines = {
            wanted.line for wanted in imports(module) if wanted.within("unittest.mock", "mock")
        }
        lines |= {
            node.lineno
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Call)
            and called(node) in ("monkeypatch.setattr", "monkeypatch.setitem")
        }
        found += [module.at(line, "use a fake instead of patching") for line in sorted(lines)]
    return found
