"""The metrics that a scrape finds: the process's own, and those in dashboard and alerts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from services.chassis import telemetry

ROOT = Path(__file__).parents[3]
OBSERVABILITY = ROOT / "compose" / "observability"
NAME = re.compile(r"\b(?:stellwerk|process|python|up)(?:_[a-z0-9_]+)?\b(?![\"=])")
LABELS = re.compile(r"(?:by|without) \(([^)]*)\)")
MATCHERS = re.compile(r'([a-z_]+)(?:=~|!~|!=|=)"')
# Labels that Prometheus and its configuration add to every series.
ADDED = {"job", "instance", "service"}
FUNCTIONS = {"rate", "increase", "changes", "sum", "count", "min", "absent", "histogram_quantile"}


# Puts the five services together in a process of its own, and prints what a scrape of each finds.
SCRAPE = """
import json, sys
from importlib import import_module
from prometheus_client import generate_latest
from tools.settings_docs import SERVICES, settings_class

told = {"service_key": "sws_router_" + "x" * 43, "root_key": "r" * 48, "cache_dir": sys.argv[1],
        "mongo_url": "mongodb://127.0.0.1:1/"}
found = {}
for service in SERVICES:
    settings = settings_class(service)
    given = {name: value for name, value in told.items() if name in settings.model_fields}
    process = import_module(f"services.{service}.main").compose(settings(**given))
    process.call_metrics.observe("/x.Y/Z", "OK", 0.001)
    found[service] = generate_latest(process.metrics).decode()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def scrapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The metrics of the five services in Prometheus' text format."""
    path = os.pathsep.join(str(ROOT / name) for name in ("", "generated", "sdk"))
    done = subprocess.run(
        [sys.executable, "-c", SCRAPE, str(tmp_path_factory.mktemp("cache"))],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def exposed(scrape: str) -> set[str]:
    """The names of a scrape's series, whether they have samples yet or not."""
    found = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", scrape, re.M):
        suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        found |= {name + suffix for suffix in suffixes}
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((OBSERVABILITY / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return dict(json.loads((OBSERVABILITY / "dashboard.json").read_text()))


def expressions() -> list[str]:
    targets = [target for panel in dashboard()["panels"] for target in panel["targets"]]
    return [target["expr"] for target in targets] + [rule["expr"] for rule in rules()]


def test_every_service_shows_its_process_its_release_and_its_readiness(
    scrapes: dict[str, str],
) -> None:
    for service, scrape in scrapes.items():
        assert {
            "process_resident_memory_bytes",
            "process_cpu_seconds_total",
            "process_start_time_seconds",
            "process_open_fds",
            "python_info",
        } <= exposed(scrape)
        build = rf'^stellwerk_build_info{{service="{service}",version="[^"]+"}} 1.0$'
        assert re.search(build, scrape, re.M)
        assert f'stellwerk_ready{{service="{service}"}} 0.0' in scrape


def test_no_series_tells_when_another_was_created(scrapes: dict[str, str]) -> None:
    assert "stellwerk_rpc_seconds_count" in scrapes["router"]
    assert not [service for service, scrape in scrapes.items() if "_created" in scrape]


def test_every_metric_of_dashboard_and_alerts_is_exposed_by_a_service(
    scrapes: dict[str, str],
) -> None:
    known = {name for scrape in scrapes.values() for name in exposed(scrape)} | {"up"}

    for expression in expressions():
        named = set(NAME.findall(re.sub(r'"[^"]*"', '""', expression)))
        assert named, expression
        assert named <= known, f"{expression} names {named - known}"


def test_every_label_of_dashboard_and_alerts_is_one_that_the_metrics_have() -> None:
    known = {*ADDED, "le"}
    for source in (ROOT / "services").glob("*/**/*.py"):
        text = source.read_text()
        if "prometheus_client" in text:
            known |= set(re.findall(r'"([a-z_]+)"', text))

    for expression in expressions():
        groups = LABELS.findall(expression)
        labels = {label.strip() for group in groups for label in group.split(",")}
        labels |= set(MATCHERS.findall(expression))
        assert labels <= known, f"{expression} asks for {labels - known}"


def test_alert_rules_are_well_formed() -> None:
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, rule
        assert re.fullmatch(r"Stellwerk[A-Za-z]+", rule["alert"])
        assert re.fullmatch(r"[0-9]+[smh]", rule.get("for", "1m"))
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
    assert len({rule["alert"] for rule in rules()}) == len(rules())


def test_expressions_are_balanced_and_call_known_functions() -> None:
    for expression in expressions():
        bare = re.sub(r'"[^"]*"', "", expression)
        for opening, closing in ("()", "{}", "[]"):
            assert bare.count(opening) == bare.count(closing), expression
        assert set(re.findall(r"([a-z_]+)\(", bare)) <= FUNCTIONS, expression


def test_panels_have_numbers_and_places_of_their_own() -> None:
    panels = dashboard()["panels"]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)


def test_prometheus_scrapes_each_service_where_containers_serve_metrics() -> None:
    config = yaml.safe_load((OBSERVABILITY / "prometheus.yaml").read_text())
    env = (OBSERVABILITY.parent / "env" / "common.env").read_text()
    (discovery,) = config["scrape_configs"][0]["dns_sd_configs"]

    assert set(discovery["names"]) == {
        "api_gateway",
        "router",
        "runtime",
        "repository",
        "controlplane",
    }
    assert f"STELLWERK_METRICS_LISTEN=0.0.0.0:{discovery['port']}" in env


_CALLS = st.tuples(
    st.sampled_from(["/a.B/C", "/a.B/D"]),
    st.sampled_from(["OK", "INTERNAL"]),
    st.one_of(st.sampled_from([*telemetry._BUCKETS, 0.0, 100.0]), st.floats(0, 100)),
    st.integers(1, 300),
)


@given(st.lists(_CALLS, max_size=10))
def test_counted_calls_are_scraped_as_the_library_would_count_them_one_by_one(
    calls: list[tuple[str, str, float, int]],
) -> None:
    counted, plain = CollectorRegistry(), CollectorRegistry()
    metrics = telemetry.CallMetrics(counted)
    count = Counter("stellwerk_rpc", "RPCs served", ["rpc", "code"], registry=plain)
    seconds = Histogram(
        "stellwerk_rpc_seconds",
        "Seconds from the start to the end of an RPC",
        ["rpc"],
        buckets=telemetry._BUCKETS,
        registry=plain,
    )

    for method, code, took, times in calls:
        metrics.observe(method, code, took, times)
        for _ in range(times):
            count.labels(method, code).inc()
            seconds.labels(method).observe(took)

    assert _samples(counted) == _samples(plain)


def _samples(registry: CollectorRegistry) -> dict[str, Any]:
    """The lines of a scrape, with sums rounded and without those of when counting began."""
    lines = [
        line for line in generate_latest(registry).decode().splitlines() if "_created" not in line
    ]
    values = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in lines}
    return {
        name: pytest.approx(float(value)) if "_sum" in name else value
        for name, value in values.items()
    }
