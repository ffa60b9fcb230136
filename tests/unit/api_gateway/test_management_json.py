"""The extensions' JSON: numbers stay numbers, enums are words, what is left out may be left out."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api_gateway.open_inference import management_json
from stellwerk.inference.v2 import grpc_service_pb2 as inference
from stellwerk.inference.v2 import model_config_pb2 as config
from stellwerk.wire.errors import InvalidInput


def test_numbers_of_64_bits_are_numbers_and_zeros_are_printed() -> None:
    response = inference.ModelStatisticsResponse()
    stats = response.model_stats.add(
        name="iris", version="3", last_inference=(1 << 64) - 1, inference_count=8
    )
    stats.inference_stats.success.count = 1
    stats.response_stats["0"].fail.ns = 7
    stats.batch_stats.add(batch_size=8).compute_infer.ns = 9

    (found,) = orjson.loads(orjson.dumps(management_json.plain(response)))["model_stats"]

    assert (found["last_inference"], found["inference_count"], found["execution_count"]) == (
        (1 << 64) - 1,
        8,
        0,
    )
    assert found["inference_stats"] == {"success": {"count": 1, "ns": 0}}
    assert found["batch_stats"] == [{"batch_size": 8, "compute_infer": {"count": 0, "ns": 9}}]
    assert found["response_stats"]["0"] == {"fail": {"count": 0, "ns": 7}}
    assert found["memory_usage"] == []


def test_a_configuration_has_the_protocols_names_and_words() -> None:
    message = config.ModelConfig(name="iris", backend="skops", max_batch_size=8)
    message.input.add(name="X", data_type=config.TYPE_FP64, dims=[-1, 4])
    message.dynamic_batching.default_queue_policy.max_queue_size = 100
    message.parameters["methods"].string_value = "predict"

    found = management_json.plain(message)

    assert found["input"] == [{"name": "X", "data_type": "TYPE_FP64", "dims": [-1, 4]}]
    assert found["dynamic_batching"]["default_queue_policy"]["timeout_action"] == "REJECT"
    assert found["parameters"] == {"methods": {"string_value": "predict"}}
    assert "response_cache" not in found
    assert found["max_batch_size"] == 8


@pytest.mark.parametrize("body", [b"", b"  \n", b"{}", b'{"ready": false, "unknown": 1}'])
def test_a_request_for_the_index_may_be_empty(body: bytes) -> None:
    assert management_json.read_index(body) == inference.RepositoryIndexRequest()


def test_the_index_can_be_asked_for_a_bucket_and_for_what_is_ready() -> None:
    request = management_json.read_index(b'{"ready": true, "repository_name": "team"}')

    assert (request.ready, request.repository_name) == (True, "team")


def test_the_index_is_an_array_without_empty_words() -> None:
    response = inference.RepositoryIndexResponse()
    response.models.add(name="iris", version="3")
    response.models.add(name="team:wine", version="1", state="UNAVAILABLE", reason="it holds code")

    assert orjson.loads(management_json.write_index(response)) == [
        {"name": "iris", "version": "3"},
        {"name": "team:wine", "version": "1", "state": "UNAVAILABLE", "reason": "it holds code"},
    ]
    assert management_json.write_index(inference.RepositoryIndexResponse()) == b"[]"


def test_parameters_keep_their_types() -> None:
    request = inference.RepositoryModelLoadRequest()

    management_json.read_parameters(
        b'{"parameters": {"config": "{}", "unload_dependents": true, "n": -5}}', request.parameters
    )

    assert request.parameters["config"].string_param == "{}"
    assert request.parameters["unload_dependents"].WhichOneof("parameter_choice") == "bool_param"
    assert request.parameters["n"].int64_param == -5


def test_trace_settings_are_strings_lists_numbers_or_null() -> None:
    request = inference.TraceSettingRequest()

    management_json.read_trace_settings(
        b'{"trace_level": ["OFF"], "trace_rate": "9", "trace_count": 5, "trace_file": null}',
        request,
    )

    given = {name: list(setting.value) for name, setting in request.settings.items()}
    assert given == {
        "trace_level": ["OFF"],
        "trace_rate": ["9"],
        "trace_count": ["5"],
        "trace_file": [],
    }


def test_log_settings_keep_their_types() -> None:
    request = inference.LogSettingsRequest()

    management_json.read_log_settings(
        b'{"log_info": false, "log_verbose_level": 2, "log_format": "json", "log_error": null}',
        request,
    )

    chosen = {
        name: setting.WhichOneof("parameter_choice") for name, setting in request.settings.items()
    }
    assert chosen == {
        "log_info": "bool_param",
        "log_verbose_level": "uint32_param",
        "log_format": "string_param",
        "log_error": None,
    }


def test_settings_are_written_as_clients_read_them() -> None:
    traces, logs = inference.TraceSettingResponse(), inference.LogSettingsResponse()
    traces.settings["trace_level"].value.append("TIMESTAMPS")
    traces.settings["trace_rate"].value.append("1000")
    traces.settings["trace_file"].value.append("")
    logs.settings["log_info"].bool_param = False
    logs.settings["log_verbose_level"].uint32_param = 0
    logs.settings["log_file"].string_param = ""

    assert orjson.loads(management_json.write_trace_settings(traces)) == {
        "trace_level": ["TIMESTAMPS"], "trace_rate": "1000", "trace_file": "",
    }  # fmt: skip
    assert orjson.loads(management_json.write_log_settings(logs)) == {
        "log_info": False, "log_verbose_level": 0, "log_file": "",
    }  # fmt: skip


def _readers(body: bytes) -> list[Any]:
    return [
        lambda: management_json.read_index(body),
        lambda: management_json.read_parameters(
            body, inference.RepositoryModelLoadRequest().parameters
        ),
        lambda: management_json.read_trace_settings(body, inference.TraceSettingRequest()),
        lambda: management_json.read_log_settings(body, inference.LogSettingsRequest()),
    ]


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null", b"{", b"\xff"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    for read in _readers(body):
        with pytest.raises(InvalidInput):
            read()


@pytest.mark.parametrize(
    ("reader", "body"),
    [
        (0, b'{"ready": 1}'),
        (0, b'{"repository_name": 7}'),
        (1, b'{"parameters": []}'),
        (1, b'{"parameters": {"x": 1.5}}'),
        (1, b'{"parameters": {"x": null}}'),
        (1, b'{"parameters": {"x": 9223372036854775808}}'),
        (2, b'{"trace_rate": true}'),
        (2, b'{"trace_rate": 1.5}'),
        (2, b'{"trace_level": [null]}'),
        (2, b'{"trace_level": {"a": 1}}'),
        (3, b'{"log_verbose_level": -1}'),
        (3, b'{"log_verbose_level": 4294967296}'),
        (3, b'{"log_info": []}'),
    ],
)
def test_values_of_the_wrong_type_are_refused(reader: int, body: bytes) -> None:
    with pytest.raises(InvalidInput):
        _readers(body)[reader]()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(
    JSON | st.fixed_dictionaries({"parameters": st.dictionaries(st.text(), JSON), "ready": JSON})
)
def test_any_json_is_read_or_refused(data: Any) -> None:
    for read in _readers(orjson.dumps(data)):
        try:
            read()
        except InvalidInput as error:
            assert error.message
