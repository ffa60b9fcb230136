"""The protocol's extensions: statistics, model configuration, model repository, trace and log
settings; and shared memory, which is not offered."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from services.chassis import context
from services.chassis.telemetry import Tracing
from services.router.calls.invocations import Predictions
from services.router.calls.statistics import Statistics, describe
from services.router.fleet.reconciler import Serving
from services.router.open_inference import repository_index as index
from services.router.open_inference import trace_settings, visibility
from services.router.open_inference.log_settings import LogSettings, Value
from services.router.open_inference.model_config import config_of
from stellwerk.inference.v2 import grpc_service_pb2 as messages
from stellwerk.repository.v1 import repository_service_pb2 as repository
from stellwerk.wire.errors import BucketNotFound, InvalidInput, NotFound, NotImplementedHere
from stellwerk.wire.names import (
    ModelName,
    bucket_name,
    inference_name,
    parse_inference_name,
    parse_model,
)

# What the server says it implements, in the protocol's words. Clients behave by them, so each of
# them is true.
EXTENSIONS = (
    "binary_tensor_data", "classification", "generate", "logging", "model_configuration", "model_repository",
    "parameters", "schedule_policy", "statistics", "trace",
)  # fmt: skip
# Letting a model go is waited for this long, so that who looks afterwards sees it gone.
_UNLOAD_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Tools:
    """What the extensions work with beyond what predictions do."""

    statistics: Statistics
    tracing: Tracing
    logs: LogSettings


class InferenceExtension:
    """The second half of inference.GRPCInferenceService."""

    def __init__(self, predictions: Predictions, serving: Serving, tools: Tools) -> None:
        self._predictions, self._serving, self._tools = predictions, serving, tools
        self._catalogue = index.Catalogue(predictions.directory.repository)

    async def ModelConfig(
        self, request: messages.ModelConfigRequest, _: Any
    ) -> messages.ModelConfigResponse:
        version = await self._predictions.resolve(
            parse_inference_name(request.name, request.version)
        )
        return messages.ModelConfigResponse(config=config_of(request.name, version))

    async def ModelStatistics(
        self, request: messages.ModelStatisticsRequest, _: Any
    ) -> messages.ModelStatisticsResponse:
        names = await self._counted(request.name, request.version)
        return messages.ModelStatisticsResponse(
            model_stats=[await self._statistics(name) for name in names]
        )

    async def _counted(self, name: str, version: str) -> list[ModelName]:
        """The versions that a request for statistics is about, by name and number."""
        members = self._serving.fleet.members.values()
        known = {
            parse_model(name)
            for name in (*self._tools.statistics.versions(), *index.loaded(members))
        }
        if not name:
            if version:
                raise InvalidInput("a version needs the name of its model", field="version")
            return sorted(filter(lambda found: visibility.sees(found.bucket), known), key=_order)
        asked = parse_inference_name(name, version)
        visibility.require(asked.bucket)
        resolved = parse_model((await self._predictions.resolve(asked)).name)
        found = (
            {resolved} if version else {other for other in known if other.parent == resolved.parent}
        )
        return sorted(found or {resolved}, key=_order)

    async def _statistics(self, name: ModelName) -> messages.ModelStatistics:
        version = repository.ModelVersion()
        with suppress(NotFound):  # deleted since it was called
            version = await self._predictions.resolve(name)
        return describe(
            inference_name(name),
            str(name.version),
            self._tools.statistics.of(str(name)),
            memory_bytes=index.memory(self._serving.fleet.members.values(), str(name)),
            caches=version.serving.response_cache,
        )

    async def RepositoryIndex(
        self, request: messages.RepositoryIndexRequest, _: Any
    ) -> messages.RepositoryIndexResponse:
        wanted, catalogue = request.repository_name, self._catalogue
        if wanted:
            bucket_name(wanted)
            visibility.require(wanted)
            stored = await catalogue.models(wanted)
        else:
            stored = []
            for bucket in filter(visibility.sees, await catalogue.buckets()):
                with suppress(BucketNotFound):  # deleted meanwhile
                    stored += await catalogue.models(bucket)
        served = index.loaded(self._serving.fleet.members.values())
        return messages.RepositoryIndexResponse(
            models=index.entries(stored, served, ready=request.ready)
        )

    async def RepositoryModelLoad(
        self, request: messages.RepositoryModelLoadRequest, _: Any
    ) -> messages.RepositoryModelLoadResponse:
        name = _addressed(request)
        for parameter in request.parameters:
            if parameter == "config" or parameter.startswith("file:"):
                raise NotImplementedHere(
                    "a stored version never changes, so it cannot be loaded with another"
                    " configuration or other files; store a new version"
                )
            raise _unknown(parameter)
        await self._serving.load(await self._predictions.resolve(name), context.work_deadline())
        return messages.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: messages.RepositoryModelUnloadRequest, _: Any
    ) -> messages.RepositoryModelUnloadResponse:
        name = _addressed(request)
        for parameter, value in request.parameters.items():
            if parameter != "unload_dependents":
                raise _unknown(parameter)
            if value.WhichOneof("parameter_choice") != "bool_param":
                raise InvalidInput("unload_dependents is true or false", field="parameters")
        await self._predictions.resolve(name)
        deadline = min(context.work_deadline(), time.monotonic() + _UNLOAD_SECONDS)
        await self._serving.unload(name.parent, deadline)
        return messages.RepositoryModelUnloadResponse()

    async def TraceSetting(
        self, request: messages.TraceSettingRequest, _: Any
    ) -> messages.TraceSettingResponse:
        tracing = self._tools.tracing
        if request.model_name:
            await self._predictions.resolve(parse_inference_name(request.model_name))
            if request.settings:
                raise InvalidInput(
                    "trace settings are the same for all models; leave the model out",
                    field="model_name",
                )
        trace_settings.change(
            tracing, {name: list(given.value) for name, given in request.settings.items()}
        )
        response = messages.TraceSettingResponse()
        for name, values in trace_settings.read(tracing).items():
            response.settings[name].value.extend(values)
        return response

    async def LogSettings(
        self, request: messages.LogSettingsRequest, _: Any
    ) -> messages.LogSettingsResponse:
        self._tools.logs.change(
            {name: _log_value(value) for name, value in request.settings.items()}
        )
        response = messages.LogSettingsResponse()
        for name, value in self._tools.logs.read().items():
            setattr(response.settings[name], _LOG_FIELDS[type(value)], value)
        return response

    async def SystemSharedMemoryStatus(self, request: Any, _: Any) -> NoReturn:
        raise _no_shared_memory()

    SystemSharedMemoryRegister = SystemSharedMemoryUnregister = SystemSharedMemoryStatus
    CudaSharedMemoryStatus = CudaSharedMemoryRegister = CudaSharedMemoryUnregister = (
        SystemSharedMemoryStatus
    )


_LOG_FIELDS: Mapping[type, str] = {bool: "bool_param", int: "uint32_param", str: "string_param"}


def _log_value(value: Any) -> Value | None:
    chosen = value.WhichOneof("parameter_choice")
    found: Value | None = getattr(value, chosen) if chosen else None
    return found


def _no_shared_memory() -> NotImplementedHere:
    return NotImplementedHere(
        "shared memory is not offered, since models run in other processes and on other machines; "
        "send tensors in the request"
    )


def _addressed(request: Any) -> ModelName:
    """The model that is to be loaded or let go. The permission was checked for the bucket in its
    name, so that a repository_name cannot mean another one."""
    name = parse_inference_name(request.model_name)
    if request.repository_name not in ("", name.bucket):
        raise InvalidInput(
            f"{request.model_name} is in the bucket {name.bucket}; a model of another one is named"
            " bucket:model",
            field="repository_name",
        )
    return name


def _unknown(parameter: str) -> InvalidInput:
    return InvalidInput(f"there is no parameter '{parameter[:64]}' here", field="parameters")


def _order(name: ModelName) -> tuple[str, str, int]:
    return name.bucket, name.model, name.version or 0
