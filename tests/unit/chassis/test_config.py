"""Settings from the environment: all wrong variables are named, misspelt ones are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.chassis.config import PREFIX, ConfigError, ServiceSettings, load, misspelt
from tools.settings_docs import SERVICES, settings_class


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("LISTEN", "50051", "must be host:port"),
        ("LISTEN", "127.0.0.1:port", "must be host:port"),
        ("LISTEN", "127.0.0.1:65536", "must be host:port"),
        ("METRICS_LISTEN", "127.0.0.1", "must be host:port"),
        ("BROKER", "rabbitmq", 'must be "pull" or amqp://'),
        ("BROKER", "amqp://", 'must be "pull" or amqp://'),
        ("BROKER", "amqp://canary@host:port", 'must be "pull" or amqp://'),
        ("OTEL_ENDPOINT", "nonsense", "must be host:port or http(s)://host:port"),
        ("OTEL_ENDPOINT", "http://host:4317/v1/traces", "must be host:port or http(s)://"),
        ("LOG_LEVEL", "chatty", "Input should be 'debug', 'info', 'warning' or 'error'"),
        ("DRAIN_SECONDS", "soon", "Input should be a valid number"),
        ("TLS_KEY", "/nowhere/tls.key", "Path does not point to a file"),
        ("SERVICE_KEY_FILE", "/nowhere/service.key", "cannot read the file: No such file"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_the_reason(
    variable: str, value: str, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(ServiceSettings, {PREFIX + variable: value})

    assert str(caught.value).startswith(f"STELLWERK_{variable}: {problem}")
    assert "canary" not in str(caught.value)


def test_all_wrong_settings_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        load(ServiceSettings, {"STELLWERK_LISTEN": "", "STELLWERK_DRAIN_SECONDS": "-1"})

    names = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert names == ["STELLWERK_DRAIN_SECONDS", "STELLWERK_LISTEN"]


@pytest.mark.parametrize("address", ["127.0.0.1:0", "0.0.0.0:50051", "[::1]:50051", "router:1"])
def test_addresses_of_every_kind_are_taken(address: str) -> None:
    assert load(ServiceSettings, {"STELLWERK_LISTEN": address}).listen == address


@pytest.mark.parametrize("endpoint", ["", "host:4317", "http://[::1]:4317", "https://h:1/"])
def test_collectors_of_every_kind_are_taken(endpoint: str) -> None:
    settings = load(ServiceSettings, {"STELLWERK_OTEL_ENDPOINT": endpoint})

    assert settings.otel_endpoint == endpoint


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match="STELLWERK_SERVICE_KEY_FILE: the file holds no text"):
        load(ServiceSettings, {"STELLWERK_SERVICE_KEY_FILE": str(tmp_path / "key")})


@pytest.mark.parametrize(
    ("variable", "setting"),
    [
        ("STELLWERK_LOG_LEVL", "STELLWERK_LOG_LEVEL"),
        ("STELLWERK_LOGLEVEL", "STELLWERK_LOG_LEVEL"),
        ("STELLWERK_DRAIN_SECOND", "STELLWERK_DRAIN_SECONDS"),
        ("STELLWERK_SERVICE_KEYFILE", "STELLWERK_SERVICE_KEY_FILE"),
        ("STELLWERKLISTEN", "STELLWERK_LISTEN"),
    ],
)
def test_a_misspelt_variable_is_found_with_the_setting_it_resembles(
    variable: str, setting: str
) -> None:
    assert misspelt(ServiceSettings, {variable: "1"}) == {variable: setting}


def test_variables_of_other_programs_and_services_are_left_alone() -> None:
    environ = {"STELLWERK_URL": "x", "STELLWERK_TOKEN": "x", "STELLWERK_BIND": "x", "LOG_LEVL": "x"}

    assert misspelt(ServiceSettings, environ) == {}


def test_no_setting_of_one_service_counts_as_a_misspelling_in_another() -> None:
    classes = [settings_class(service) for service in SERVICES]
    environ = {
        PREFIX + field.upper() + suffix: "x"
        for cls in classes
        for field in cls.model_fields
        for suffix in ("", "_FILE")
    }

    found = {name: misspelt(cls, environ) for name, cls in zip(SERVICES, classes, strict=True)}

    assert found == {name: {} for name in SERVICES}


def test_half_a_switch_is_refused(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()

    with pytest.raises(ConfigError, match="belong together"):
        load(ServiceSettings, {"STELLWERK_TLS_CA": str(ca)})


def test_a_secret_is_read_from_its_file_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("sws_router_hunter2\n")

    settings = load(ServiceSettings, {"STELLWERK_SERVICE_KEY_FILE": str(path)})

    assert settings.service_key is not None
    assert settings.service_key.get_secret_value() == "sws_router_hunter2"
    assert "hunter2" not in repr(settings)
