"""The rooms of each package and the arrows between them: which room may import which.

A room stands below all rooms that it imports. The checks are in `checks/rooms.py`.
"""

from __future__ import annotations

from tests.architecture.checks.rooms import House

HOUSES: dict[str, House] = {
    "services.api_gateway": House(
        {
            "routing": "",
            "http": "routing",
            "upstream": "routing",
            "transcoding": "routing",
            "open_inference": "routing http upstream transcoding",
            "generation": "http upstream transcoding open_inference",
            "grpc_door": "routing upstream",
            "openapi": "routing http transcoding",
        },
        leaves="config",
    ),
    "services.router": House(
        {
            "queueing": "",
            "fleet": "queueing",
            "naming": "queueing fleet",
            "dispatch": "queueing",
            "calls": "queueing fleet naming dispatch",
            "open_inference": "fleet naming calls",
        },
        leaves="config",
    ),
    "services.runtime": House(
        {
            "formats": "",
            "requests": "formats",
            "execution": "formats requests",
            "batching": "requests execution",
            "models": "formats",
            "replies": "requests execution",
            "intake": "formats requests batching models replies",
            "fleet": "formats models",
        },
        leaves="config metrics",
    ),
    "services.runtime.formats": House(
        {"onnx": "", "torch": "", "sklearn": "", "pickled": "sklearn"}, leaves="port"
    ),
    "services.repository": House(
        {"events": "", "catalogue": "events", "artifacts": "catalogue"},
        leaves="config metrics mongo",
    ),
    "services.controlplane": House({"audit": "", "identity": "", "status": ""}, leaves="config"),
    "services.chassis": House(
        {"broker": "", "access": "", "rpc": "access", "lifecycle": "broker access rpc"},
        leaves="allocator background bounded_cache config context futures logs mongo release"
        " rpc_status single_flight telemetry",
    ),
    "services.chassis.broker": House({"amqp": "", "pull": ""}, leaves="port received topics"),
    "services.local": House(
        {"processes": "", "backing": "processes"}, leaves="errors ports secrets plan"
    ),
    "stellwerk.client": House(
        {
            "transport": "",
            "session": "transport",
            "packaging": "",
            "resources": "session packaging",
            "cli": "resources",
        },
        leaves="errors settings naming arrays",
    ),
    "stellwerk.conformance": House(
        {"models": "", "server": "models", "cases": "server", "reporting": "cases"},
        leaves="expect values",
    ),
}
