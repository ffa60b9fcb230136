"""What a user of KServe's client does, run in its own environment.

Usage: kserve_client.py HTTP_URL GRPC_ADDRESS MODEL, with the token in TOKEN; prints one JSON
object.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]])


def request(model: str, binary: bool) -> InferRequest:
    given = InferInput("X", [2, 4], "FP64")
    given.set_data_from_numpy(ROWS, binary_data=binary)
    return InferRequest(model, [given], request_id="7")


async def over_rest(url: str, model: str, token: str) -> dict[str, Any]:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    headers = {"Authorization": f"Bearer {token}"}
    seen: dict[str, Any] = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model_ready": await client.is_model_ready(url, model, headers=headers),
    }
    for form, binary in (("json", False), ("binary", True)):
        answer = await client.infer(url, request(model, binary), model_name=model, headers=headers)
        seen[form] = answer.outputs[0].as_numpy().tolist()
        seen["id"], seen["version"] = answer.id, answer.model_version
    await client.close()
    return seen


async def over_grpc(address: str, model: str, token: str) -> dict[str, Any]:
    client = InferenceGRPCClient(address, retries=0)
    headers = [("authorization", f"Bearer {token}")]
    seen: dict[str, Any] = {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model_ready": await client.is_model_ready(model, headers=headers),
    }
    for form, binary in (("json", False), ("binary", True)):
        answer = await client.infer(request(model, binary), headers=headers)
        seen[form] = answer.outputs[0].as_numpy().tolist()
        seen["id"], seen["version"] = answer.id, answer.model_version
    await client.close()
    return seen


async def main(url: str, address: str, model: str) -> None:
    token = os.environ["TOKEN"]
    seen = {
        "rest": await over_rest(url, model, token),
        "grpc": await over_grpc(address, model, token),
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
