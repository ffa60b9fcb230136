"""compose/: valid for the real Compose, hardened in every service, and understood by those that it
configures.
"""

from __future__ import annotations

import importlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.chassis.config import PREFIX, ServiceSettings, load
from services.local.secrets import SERVICES, Secrets

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose" / "compose.yaml"
TOOLS = Path(sys.executable).parent


def _compose(*arguments: str, file: Path = COMPOSE) -> subprocess.CompletedProcess[str]:
    command = [str(TOOLS / "docker-compose"), "-f", str(file), *arguments]
    environment = {"PATH": os.defpath, "HOME": "/nonexistent"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


@pytest.fixture(scope="module")
def resolved() -> dict[str, Any]:
    """The configuration as Compose understands it: anchors, env files and defaults resolved."""
    done = _compose("config", "--format", "json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def observed() -> dict[str, Any]:
    """The services that the observability profile adds, as Compose understands them."""
    done = _compose("--profile", "observability", "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    services = dict(json.loads(done.stdout))["services"]
    return {name: services[name] for name in ("prometheus", "grafana")}


def test_the_real_compose_accepts_the_file() -> None:
    done = _compose("config", "-q")

    assert (done.returncode, done.stderr) == (0, "")


def test_the_real_compose_would_refuse_a_mistake(tmp_path: Path) -> None:
    wrong = yaml.safe_load(COMPOSE.read_text())
    wrong["services"]["router"]["read_onyl"] = True
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(wrong))

    done = _compose("config", "-q", file=tmp_path / "compose.yaml")

    assert done.returncode != 0
    assert "read_onyl" in done.stderr


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = subprocess.run(
        [str(TOOLS / "hadolint"), str(ROOT / "compose" / "Dockerfile")],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.returncode, done.stdout) == (0, "")


def test_the_five_services_a_broker_and_a_database_are_there(resolved: dict[str, Any]) -> None:
    assert set(resolved["services"]) == {*SERVICES, "rabbitmq", "mongodb"}


def _weaknesses(service: dict[str, Any]) -> list[str]:
    """What a service of the resolved configuration lacks."""
    limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
    rules = {
        "its root is writable": service.get("read_only") is True,
        "it keeps capabilities": service.get("cap_drop") == ["ALL"] and not service.get("cap_add"),
        "it may gain privileges": "no-new-privileges:true" in service.get("security_opt", []),
        "it runs as root": str(service.get("user", "0")).split(":")[0] not in ("", "0", "root"),
        "it is privileged": not service.get("privileged") and service.get("network_mode") is None,
        "it shares the host": not any(service.get(key) for key in ("pid", "ipc", "uts", "devices")),
        "it has no health check": bool(service.get("healthcheck", {}).get("test")),
        "it has no limits": {"cpus", "memory", "pids"} <= set(limits),
        "its image floats": service.get("image", "").partition(":")[2] not in ("latest", ""),
        "it mounts the host": all(
            volume["type"] != "bind" for volume in service.get("volumes", [])
        ),
    }
    return [problem for problem, holds in rules.items() if not holds]


def test_every_service_is_hardened(resolved: dict[str, Any]) -> None:
    found = {name: _weaknesses(service) for name, service in resolved["services"].items()}

    assert not any(found.values()), found


def test_the_observability_profile_is_hardened_and_published_on_the_loopback_alone(
    observed: dict[str, Any],
) -> None:
    found = {name: _weaknesses(service) for name, service in observed.items()}
    published = {
        name: [(port["host_ip"], port["target"]) for port in service["ports"]]
        for name, service in observed.items()
    }

    assert not any(found.values()), found
    assert published == {"prometheus": [("127.0.0.1", 9090)], "grafana": [("127.0.0.1", 3000)]}


def test_prometheus_shares_a_network_with_every_service(
    resolved: dict[str, Any], observed: dict[str, Any]
) -> None:
    networks = set(observed["prometheus"]["networks"])

    assert all(networks & set(resolved["services"][service]["networks"]) for service in SERVICES)


def test_a_bare_service_would_be_found_weak() -> None:
    assert (
        len(
            _weaknesses(
                {"image": "x", "privileged": True, "volumes": [{"type": "bind"}], "pid": "host"}
            )
        )
        == 10
    )


def test_only_the_gateway_is_published_and_only_on_the_loopback(resolved: dict[str, Any]) -> None:
    published = {
        name: [(port["host_ip"], port["target"]) for port in service["ports"]]
        for name, service in resolved["services"].items()
        if service.get("ports")
    }

    assert published == {"api_gateway": [("127.0.0.1", 8080), ("127.0.0.1", 8081)]}


def test_only_the_gateway_has_a_network_that_leads_outside(resolved: dict[str, Any]) -> None:
    outside = {
        name for name, network in resolved["networks"].items() if not network.get("internal")
    }

    assert {
        name for name, service in resolved["services"].items() if outside & set(service["networks"])
    } == {"api_gateway"}


def test_the_database_is_reached_by_its_two_owners_only(resolved: dict[str, Any]) -> None:
    reach = {
        name for name, service in resolved["services"].items() if "database" in service["networks"]
    }

    assert reach == {"repository", "controlplane", "mongodb"}


def test_no_secret_stands_in_the_configuration(resolved: dict[str, Any]) -> None:
    words = ("password", "secret", "key", "token", "url")
    for service in resolved["services"].values():
        for variable, value in (service.get("environment") or {}).items():
            if any(word in variable.lower() for word in words):
                assert variable.endswith(("_FILE", "_KEYS")) and value.startswith(
                    "/run/secrets/"
                ), variable


def _as_mounted(
    service: dict[str, Any], definitions: dict[str, Any], secrets: Path, mounts: Path
) -> None:
    """Lays the service's secrets out under `mounts` as Compose would under /run/secrets."""
    for secret in service.get("secrets") or []:
        source = Path(definitions[secret["source"]]["file"]).relative_to(
            ROOT / "compose" / "secrets"
        )
        target = mounts / (secret.get("target") or secret["source"]).removeprefix("/run/secrets/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((secrets / source).read_bytes())


def _settings_class(service: str) -> type[ServiceSettings]:
    module = importlib.import_module(f"services.{service}.config")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, ServiceSettings)
        and value is not ServiceSettings
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_understands_the_environment_it_gets(
    service: str, resolved: dict[str, Any], tmp_path: Path
) -> None:
    Secrets(tmp_path / "secrets").create()
    Secrets(tmp_path / "secrets").create_for_containers()
    _as_mounted(
        resolved["services"][service], resolved["secrets"], tmp_path / "secrets", tmp_path / "run"
    )
    environment = {
        name: value.replace("/run/secrets", str(tmp_path / "run"))
        for name, value in resolved["services"][service]["environment"].items()
    }

    cls = _settings_class(service)
    settings = load(cls, environment)

    assert settings.service_key is not None
    assert settings.service_key.get_secret_value().startswith(f"sws_{service}_")
    known = {PREFIX + field.upper() for field in cls.model_fields}
    assert {
        name
        for name in environment
        if name not in known and name.removesuffix("_FILE") not in known
    } == set()


def test_peers_are_addressed_where_they_listen(resolved: dict[str, Any]) -> None:
    services = resolved["services"]
    listening = {
        name: services[name]["environment"]["STELLWERK_LISTEN"].replace("0.0.0.0", name)
        for name in SERVICES
    }

    for name in SERVICES:
        for peer in ("controlplane", "router", "repository"):
            assert services[name]["environment"][f"STELLWERK_{peer.upper()}"] == listening[peer]
        probe = services[name]["healthcheck"]["test"][-1]
        assert probe.rpartition(":")[2] == listening[name].rpartition(":")[2]


def test_the_control_plane_gets_every_services_key_where_it_looks(resolved: dict[str, Any]) -> None:
    secrets = {secret["target"] for secret in resolved["services"]["controlplane"]["secrets"]}

    assert secrets >= {f"service-keys/{name}.key" for name in SERVICES}


def test_container_secrets_can_be_read_by_any_user_but_only_through_the_owners_directory(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "secrets"
    Secrets(directory).create()

    written = Secrets(directory).create_for_containers()

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}
    password = (directory / "rabbitmq-password").read_text()
    assert (
        password in (directory / "broker-url").read_text()
        and password in (directory / "rabbitmq.conf").read_text()
    )
    assert Secrets(directory).create_for_containers() == [] != written
