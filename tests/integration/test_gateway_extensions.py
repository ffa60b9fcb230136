"""The extensions of the Open Inference Protocol over REST, through a running gateway: what reaches
the router, and what comes back as its OpenAPI document says."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from services.api_gateway.openapi import builder
from services.api_gateway.routing import exposed_services
from services.api_gateway.routing.routes import routes_of
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.wire.errors import ModelNotFound, NotImplementedHere
from tests.integration.gateway import Gateway

DOCUMENT = builder.document(routes_of(exposed_services.SERVED_BY), "1")


def promised(path: str, verb: str, data: Any) -> Any:
    """The data, after a check against the schema of the answer to this operation."""
    schema = DOCUMENT["paths"][path][verb]["responses"]["200"]["content"]["application/json"][
        "schema"
    ]
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(data)
    return data


def statistics() -> inference.ModelStatisticsResponse:
    response = inference.ModelStatisticsResponse()
    stats = response.model_stats.add(
        name="iris", version="2", last_inference=1 << 60, inference_count=1 << 60
    )
    for part in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
        getattr(stats.inference_stats, part).ns = 1 << 60
    stats.inference_stats.cache_hit.count = stats.inference_stats.cache_miss.count = 0
    stats.memory_usage.add(type="CPU", byte_size=1 << 40)
    return response


@pytest.mark.parametrize(
    ("path", "template", "asked"),
    [
        ("/v2/models/stats", "/v2/models/stats", ("", "")),
        ("/v2/models/team%3Airis/stats", "/v2/models/{name}/stats", ("team:iris", "")),
        (
            "/v2/models/iris/versions/2/stats",
            "/v2/models/{name}/versions/{version}/stats",
            ("iris", "2"),
        ),
    ],
)
async def test_statistics_are_numbers(
    gateway: Gateway, path: str, template: str, asked: tuple[str, str]
) -> None:
    gateway.upstreams.answer("ModelStatistics", statistics())

    answer = await gateway.http.get(path, headers=gateway.bearer())

    request = gateway.upstreams.last("ModelStatistics").request
    assert (request.name, request.version) == asked
    (found,) = promised(template, "get", answer.json())["model_stats"]
    assert found["inference_count"] == found["inference_stats"]["success"]["ns"] == 1 << 60


async def test_a_models_configuration(gateway: Gateway) -> None:
    response = inference.ModelConfigResponse()
    response.config.name, response.config.max_batch_size = "iris", 64
    response.config.input.add(name="X", data_type=12, dims=[4])  # type: ignore[arg-type]
    response.config.dynamic_batching.priority_levels = 3
    gateway.upstreams.answer("ModelConfig", response)

    answer = await gateway.http.get(
        "/v2/models/iris/versions/prod/config", headers=gateway.bearer()
    )

    assert gateway.upstreams.last("ModelConfig").request.version == "prod"
    found = promised("/v2/models/{name}/versions/{version}/config", "get", answer.json())
    assert found["input"] == [{"name": "X", "data_type": "TYPE_FP64", "dims": [4]}]
    assert found["dynamic_batching"]["priority_levels"] == 3


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ready": true}'])
async def test_the_index_is_an_array(gateway: Gateway, body: bytes) -> None:
    response = inference.RepositoryIndexResponse()
    response.models.add(name="iris", version="2", state="READY")
    gateway.upstreams.answer("RepositoryIndex", response)

    answer = await gateway.http.post("/v2/repository/index", content=body, headers=gateway.bearer())

    assert gateway.upstreams.last("RepositoryIndex").request.ready is (b"true" in body)
    found = promised("/v2/repository/index", "post", answer.json())
    assert found == [{"name": "iris", "version": "2", "state": "READY"}]


async def test_models_are_loaded_and_let_go(gateway: Gateway) -> None:
    headers = gateway.bearer()

    loaded = await gateway.http.post("/v2/repository/models/team%3Airis/load", headers=headers)
    body = {"parameters": {"unload_dependents": False}}
    gone = await gateway.http.post("/v2/repository/models/iris/unload", json=body, headers=headers)

    assert (loaded.status_code, loaded.json(), gone.status_code, gone.json()) == (200, {}, 200, {})
    assert gateway.upstreams.last("RepositoryModelLoad").request.model_name == "team:iris"
    parameters = gateway.upstreams.last("RepositoryModelUnload").request.parameters
    assert parameters["unload_dependents"].WhichOneof("parameter_choice") == "bool_param"


async def test_what_cannot_be_loaded_has_the_protocols_error(gateway: Gateway) -> None:
    gateway.upstreams.answer("RepositoryModelLoad", ModelNotFound("there is no model nope"))

    answer = await gateway.http.post("/v2/repository/models/nope/load", headers=gateway.bearer())

    assert (answer.status_code, answer.json()) == (404, {"error": "there is no model nope"})


async def test_settings_are_read_by_get_and_changed_by_post(gateway: Gateway) -> None:
    traces, logs = inference.TraceSettingResponse(), inference.LogSettingsResponse()
    traces.settings["trace_level"].value.append("OFF")
    logs.settings["log_info"].bool_param = True
    gateway.upstreams.answer("TraceSetting", traces)
    gateway.upstreams.answer("LogSettings", logs)
    headers = gateway.bearer()

    for path, template in [
        ("/v2/trace/setting", "/v2/trace/setting"),
        ("/v2/models/iris/trace/setting", "/v2/models/{model_name}/trace/setting"),
    ]:
        read = await gateway.http.get(path, headers=headers)
        assert not gateway.upstreams.last("TraceSetting").request.settings
        changed = await gateway.http.post(
            path, json={"trace_rate": "5", "trace_level": None}, headers=headers
        )
        request = gateway.upstreams.last("TraceSetting").request
        assert request.model_name == ("iris" if "iris" in path else "")
        assert {name: list(s.value) for name, s in request.settings.items()} == {
            "trace_rate": ["5"],
            "trace_level": [],
        }
        assert promised(template, "get", read.json()) == changed.json() == {"trace_level": ["OFF"]}
    read = await gateway.http.get("/v2/logging", headers=headers)
    assert not gateway.upstreams.last("LogSettings").request.settings
    changed = await gateway.http.post("/v2/logging", json={"log_verbose_level": 1}, headers=headers)
    assert (
        gateway.upstreams.last("LogSettings").request.settings["log_verbose_level"].uint32_param
        == 1
    )
    assert promised("/v2/logging", "post", changed.json()) == read.json() == {"log_info": True}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/systemsharedmemory/status"),
        ("GET", "/v2/cudasharedmemory/region/r/status"),
        ("POST", "/v2/systemsharedmemory/region/r/register"),
        ("POST", "/v2/cudasharedmemory/region/r/register"),
        ("POST", "/v2/systemsharedmemory/unregister"),
        ("POST", "/v2/cudasharedmemory/region/r/unregister"),
    ],
)
async def test_shared_memory_is_not_offered_whatever_the_body(
    gateway: Gateway, method: str, path: str
) -> None:
    for kind in ("System", "Cuda"):
        for verb in ("Status", "Register", "Unregister"):
            gateway.upstreams.answer(
                f"{kind}SharedMemory{verb}", NotImplementedHere("shared memory is not offered")
            )
    bodies = (
        [None]
        if method == "GET"
        else [None, {"key": "/k", "byte_size": 8}, {"raw_handle": {"b64": "AA=="}}]
    )

    for body in bodies:
        answer = await gateway.http.request(method, path, json=body, headers=gateway.bearer())

        assert (answer.status_code, answer.json()) == (
            501,
            {"error": "shared memory is not offered"},
        )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/repository/index", b"[1]"),
        ("/v2/repository/index", b"{"),
        ("/v2/repository/models/iris/load", b'{"parameters": 1}'),
        ("/v2/trace/setting", b'{"trace_rate": true}'),
        ("/v2/logging", b'{"log_info": [1]}'),
    ],
)
async def test_a_wrong_body_is_the_callers_mistake(
    gateway: Gateway, path: str, body: bytes
) -> None:
    answer = await gateway.http.post(path, content=body, headers=gateway.bearer())

    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert not gateway.upstreams.calls
