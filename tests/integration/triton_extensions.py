"""What a user of tritonclient does beside predicting, as a program: `triton_extensions.py HTTP GRPC
MODEL`, with the token in TOKEN; prints one JSON object. Its messages cannot live beside ours in one
process.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException


def seen(client: Any, model: str, headers: dict[str, str], **form: bool) -> dict[str, Any]:
    """What the client got, call by call; `form` asks the gRPC client for plain data."""
    common: dict[str, Any] = {"headers": headers, **form}
    found: dict[str, Any] = {"server": client.get_server_metadata(**common)}
    client.load_model(model, headers=headers)
    found["loaded"] = client.get_model_repository_index(**common)
    found["statistics"] = client.get_inference_statistics(model, **common)
    found["all_statistics"] = client.get_inference_statistics(**common)
    found["config"] = client.get_model_config(model, **common)
    found["logs"] = client.get_log_settings(**common)
    found["logs_changed"] = client.update_log_settings(
        {"log_verbose_level": 1, "log_warning": False}, **common
    )
    found["logs_back"] = client.update_log_settings(
        dict.fromkeys(["log_verbose_level", "log_warning"]), **common
    )
    found["traces"] = client.get_trace_settings(**common)
    found["traces_of_model"] = client.get_trace_settings(model, **common)
    found["traces_changed"] = client.update_trace_settings(None, {"trace_rate": "5"}, **common)
    found["traces_back"] = client.update_trace_settings(None, {"trace_rate": None}, **common)
    client.unload_model(model, headers=headers)
    found["let_go"] = client.get_model_repository_index(**common)
    found["refused"] = [
        refusal(client.load_model, "nobody", headers=headers),
        refusal(client.unload_model, "nobody", headers=headers),
        refusal(client.get_model_config, "nobody", headers=headers),
        refusal(client.get_inference_statistics, "nobody", headers=headers),
        refusal(client.load_model, model, config="{}", headers=headers),
        refusal(client.update_log_settings, {"log_file": "/tmp/x"}, headers=headers),
        refusal(client.get_system_shared_memory_status, headers=headers),
        refusal(client.register_system_shared_memory, "r", "/k", 8, headers=headers),
        refusal(client.unregister_cuda_shared_memory, headers=headers),
    ]
    return found


def refusal(call: Any, *arguments: Any, **named: Any) -> str:
    try:
        call(*arguments, **named)
    except InferenceServerException as error:
        return f"{error.status()}: {error.message()}"
    return "answered"


if __name__ == "__main__":
    http, grpc, model = sys.argv[1:]
    headers = {"authorization": "Bearer " + os.environ["TOKEN"]}
    over_http = seen(
        tritonclient.http.InferenceServerClient(http, network_timeout=120), model, headers
    )
    over_grpc = seen(tritonclient.grpc.InferenceServerClient(grpc), model, headers, as_json=True)
    print(json.dumps({"http": over_http, "grpc": over_grpc}))
