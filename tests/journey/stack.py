"""The platform as a user starts it: `stellwerk up` in a process of its own, on free ports, in a
folder of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from services.local.ports import free_port


def eventually(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The condition's first true value; fails with `what` if there is none within `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def unchanged(count: Callable[[], int], least: int, seconds: float) -> Callable[[], bool]:
    """A condition that holds when `count` gives `least` or more, and the same for that long."""
    seen = [(time.monotonic(), count())]

    def condition() -> bool:
        now, found = time.monotonic(), count()
        if found != seen[-1][1]:
            seen.append((now, found))
        return found >= least and now - seen[-1][0] > seconds

    return condition


async def soon(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """As `eventually`, for a condition that blocks, while other tasks go on."""
    return await asyncio.to_thread(eventually, condition, seconds, what)


def _foreign_project(folder: Path) -> Path:
    """Returns a project with packages `services` and `inference` of its own, to start from: they
    must not win over the platform's.
    """
    for name in ("services", "inference"):
        (folder / "project" / name).mkdir(parents=True, exist_ok=True)
        (folder / "project" / name / "__init__.py").write_text("raise ImportError(__file__)\n")
    return folder / "project"


def _company_machine() -> dict[str, str]:
    """Returns variables of a machine where nothing is as on ours: proxies, no home, no folder for
    temporary files, no UTF-8.
    """
    proxies = ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    nowhere = "/nonexistent"
    return {
        **dict.fromkeys(proxies, "http://127.0.0.1:1"),
        "HOME": nowhere,
        "TMPDIR": nowhere,
        "LC_ALL": "C",
        "LANG": "C",
    }


class Platform:
    """A running platform, and what its one line of JSON said."""

    def __init__(
        self,
        data_dir: Path,
        *,
        broker: str,
        runtimes: int = 2,
        options: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`settings` are variables for its services."""
        self.data_dir, self.broker = data_dir, broker
        self.log_path = data_dir / "platform.log"
        data_dir.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-m", "services.local", "up", "--data-dir", str(data_dir)]
        command += ["--http-port", str(free_port()), "--grpc-port", str(free_port())]
        command += ["--runtimes", str(runtimes), "--broker", broker, "--verbose"]
        command += options
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("STELLWERK_")
        }
        environment.update(_company_machine())
        environment.update(settings or {})
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=_foreign_project(data_dir),
                env=environment,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"stellwerk up ended:\n{self.log_path.read_text()[-4000:]}"
        self.ready: dict[str, Any] = json.loads(line)
        self.http: str = self.ready["http"]
        self.grpc: str = self.ready["grpc"]

    @property
    def token(self) -> str:
        """The administrator's token."""
        return Path(self.ready["token_file"]).read_text().strip()

    def pids(self) -> dict[str, int]:
        """Process ids by name, as they are now."""
        pids: dict[str, int] = json.loads((self.data_dir / "ready.json").read_text())["pids"]
        return pids

    def kill(self, name: str) -> int:
        """SIGKILL for one service; returns the pid it had."""
        pid = self.pids()[name]
        os.kill(pid, signal.SIGKILL)
        return pid

    def call(
        self, method: str, path: str, body: Any = None, token: str | None = None
    ) -> tuple[int, Any]:
        """A REST call with the administrator's token (or `token`, "" for none): status and parsed
        JSON.
        """
        status, _, data = self.raw(
            method, path, None if body is None else json.dumps(body).encode(), token
        )
        return status, json.loads(data) if data else None

    def raw(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        token: str | None = None,
        **headers: str,
    ) -> tuple[int, dict[str, str], bytes]:
        """A REST call: status, headers with lower-case names, body."""
        request = urllib.request.Request(self.http + path, data=body, method=method)
        if body is not None:
            request.add_header("Content-Type", "application/json")
        bearer = self.token if token is None else token
        if bearer:
            request.add_header("Authorization", f"Bearer {bearer}")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return (
                    answer.status,
                    {k.lower(): v for k, v in answer.headers.items()},
                    answer.read(),
                )
        except urllib.error.HTTPError as exc:
            return exc.code, {k.lower(): v for k, v in exc.headers.items()}, exc.read()

    def token_for(self, role: str, bucket: str = "*") -> str:
        """A token of a new principal with this role."""
        name = f"{role}-{time.monotonic_ns()}"
        principal = {"name": f"principals/{name}", "roles": [{"role": role, "bucket": bucket}]}
        status, answer = self.call("POST", "/v1/principals", principal)
        assert status == 200, answer
        status, key = self.call("POST", f"/v1/principals/{name}/keys", {"displayName": "test"})
        assert status == 200, key
        status, issued = self.call("POST", "/v1/tokens:issue", {"apiKey": key["secret"]}, token="")
        assert status == 200, issued
        return str(issued["accessToken"])

    def metric(self, name: str, label: str = "", process: str = "") -> float:
        """The sum of a metric over the samples that carry this label value, of all processes or of
        one.
        """
        total = 0.0
        addresses = self.ready["metrics"]
        for address in [addresses[process]] if process else addresses.values():
            with urllib.request.urlopen(address, timeout=5) as answer:
                for line in answer.read().decode().splitlines():
                    if line.startswith((name + "{", name + " ")) and (
                        not label or f'="{label}"' in line
                    ):
                        total += float(line.rsplit(" ", 1)[1])
        return total

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(40)
        finally:
            self.process.kill()


def serving_runtime(platform: Platform, model: str) -> str:
    """Returns the name of a runtime that serves the model, as `Platform.kill` takes it."""
    _, answer = platform.call("GET", "/v1/runtimes")
    for runtime in answer["runtimes"]:
        if any(f"/models/{model}/" in served["modelVersion"] for served in runtime["models"]):
            return str(runtime["name"]).removeprefix("runtimes/")
    raise AssertionError(f"nobody serves {model}")
