"""Serves the extensions of the protocol: statistics, model configuration, model repository, trace
and log settings; and refuses shared memory, which is not offered.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

from services.chassis import context
from services.chassis.telemetry import Tracing
from services.router.calls.statistics import Statistics
from services.router.fleet.reconciler import Reconciler
from services.router.naming.directory import ModelDirectory
from services.router.open_inference import repository_index, trace_settings
from services.router.open_inference.log_settings import LogSettings, Value
from services.router.open_inference.model_config import config_of
from services.router.open_inference.model_statistics import describe
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
from stellwerk.wire.permissions import authorise, permits

# The extensions that the server says it implements, in the protocol's words. Clients rely on each.
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "generate",
    "logging",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
    "trace",
)
# Seconds that an unload waits for runtimes to let the model go, so that callers that look
# afterwards see it gone.
_UNLOAD_SECONDS = 5.0


# The permission to see a model, for RPCs that are about many models and so declare no resource.
_SEE = "models.read"


class ManagementServicer:
    """The extensions' half of inference.GRPCInferenceService."""

    def __init__(
        self,
        directory: ModelDirectory,
        reconciler: Reconciler,
        statistics: Statistics,
        tracing: Tracing,
        log_settings: LogSettings,
    ) -> None:
        self._directory = directory
        self._reconciler = reconciler
        self._statistics = statistics
        self._tracing = tracing
        self._log_settings = log_settings
        self._stored = repository_index.StoredModels(directory.repository)

    async def ModelConfig(
        self, request: messages.ModelConfigRequest, _: Any
    ) -> messages.ModelConfigResponse:
        """Describes how a version is served."""
        target = await self._directory.resolve(parse_inference_name(request.name, request.version))
        return messages.ModelConfigResponse(config=config_of(request.name, target.version))

    async def ModelStatistics(
        self, request: messages.ModelStatisticsRequest, _: Any
    ) -> messages.ModelStatisticsResponse:
        """Returns the statistics of a version, of a model, or of all that the caller may see."""
        names = await self._counted(request.name, request.version)
        return messages.ModelStatisticsResponse(
            model_stats=[await self._described(name) for name in names]
        )

    async def _counted(self, name: str, version: str) -> list[ModelName]:
        """Returns the versions that a request for statistics is about, by name and number."""
        members = self._reconciler.registry.members.values()
        known = {
            parse_model(name)
            for name in (*self._statistics.versions(), *repository_index.loaded(members))
        }
        if not name:
            if version:
                raise InvalidInput("a version needs the name of its model", field="version")
            return sorted((name for name in known if _sees(name.bucket)), key=_order)
        asked = parse_inference_name(name, version)
        authorise(context.caller().grants, _SEE, asked.bucket)
        resolved = parse_model((await self._directory.resolve(asked)).name)
        found = (
            {resolved} if version else {other for other in known if other.parent == resolved.parent}
        )
        return sorted(found or {resolved}, key=_order)

    async def _described(self, name: ModelName) -> messages.ModelStatistics:
        version = repository.ModelVersion()
        with suppress(NotFound):  # deleted since it was called
            version = (await self._directory.resolve(name)).version
        return describe(
            inference_name(name),
            str(name.version),
            self._statistics.of(str(name)),
            memory_bytes=repository_index.memory(
                self._reconciler.registry.members.values(), str(name)
            ),
            caches=version.serving.response_cache,
        )

    async def RepositoryIndex(
        self, request: messages.RepositoryIndexRequest, _: Any
    ) -> messages.RepositoryIndexResponse:
        """Lists the stored models that the caller may see, each with its state in the fleet."""
        wanted = request.repository_name
        if wanted:
            bucket_name(wanted)
            authorise(context.caller().grants, _SEE, wanted)
            stored = await self._stored.models(wanted)
        else:
            stored = []
            for bucket in filter(_sees, await self._stored.buckets()):
                with suppress(BucketNotFound):  # deleted meanwhile
                    stored += await self._stored.models(bucket)
        served = repository_index.loaded(self._reconciler.registry.members.values())
        return messages.RepositoryIndexResponse(
            models=repository_index.entries(stored, served, ready=request.ready)
        )

    async def RepositoryModelLoad(
        self, request: messages.RepositoryModelLoadRequest, _: Any
    ) -> messages.RepositoryModelLoadResponse:
        """Returns when a runtime has loaded the newest version of a model."""
        name = _addressed(request)
        for parameter in request.parameters:
            if parameter == "config" or parameter.startswith("file:"):
                raise NotImplementedHere(
                    "a stored version never changes, so it cannot be loaded with another"
                    " configuration or other files; store a new version"
                )
            raise _unknown(parameter)
        target = await self._directory.resolve(name)
        await self._reconciler.load(target.version, context.work_deadline())
        return messages.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: messages.RepositoryModelUnloadRequest, _: Any
    ) -> messages.RepositoryModelUnloadResponse:
        """Has runtimes let all versions of a model go, and waits a few seconds for that."""
        name = _addressed(request)
        for parameter, value in request.parameters.items():
            if parameter != "unload_dependents":
                raise _unknown(parameter)
            if value.WhichOneof("parameter_choice") != "bool_param":
                raise InvalidInput("unload_dependents is true or false", field="parameters")
        await self._directory.resolve(name)
        deadline = min(context.work_deadline(), time.monotonic() + _UNLOAD_SECONDS)
        await self._reconciler.unload(name.parent, deadline)
        return messages.RepositoryModelUnloadResponse()

    async def TraceSetting(
        self, request: messages.TraceSettingRequest, _: Any
    ) -> messages.TraceSettingResponse:
        """Changes the trace settings that are given and returns all."""
        if request.model_name:
            await self._directory.resolve(parse_inference_name(request.model_name))
            if request.settings:
                raise InvalidInput(
                    "trace settings are the same for all models; leave the model out",
                    field="model_name",
                )
        trace_settings.change(
            self._tracing, {name: list(given.value) for name, given in request.settings.items()}
        )
        response = messages.TraceSettingResponse()
        for name, values in trace_settings.read(self._tracing).items():
            response.settings[name].value.extend(values)
        return response

    async def LogSettings(
        self, request: messages.LogSettingsRequest, _: Any
    ) -> messages.LogSettingsResponse:
        """Changes the log settings that are given and returns all."""
        self._log_settings.change(
            {name: _log_value(value) for name, value in request.settings.items()}
        )
        response = messages.LogSettingsResponse()
        for name, value in self._log_settings.read().items():
            setattr(response.settings[name], _LOG_FIELDS[type(value)], value)
        return response

    async def SystemSharedMemoryStatus(self, request: Any, _: Any) -> NoReturn:
        """Refuses shared memory, as all its RPCs do."""
        raise _no_shared_memory()

    SystemSharedMemoryRegister = SystemSharedMemoryUnregister = SystemSharedMemoryStatus
    CudaSharedMemoryStatus = CudaSharedMemoryRegister = CudaSharedMemoryUnregister = (
        SystemSharedMemoryStatus
    )


_LOG_FIELDS: Mapping[type, str] = {bool: "bool_param", int: "uint32_param", str: "string_param"}


def _sees(bucket: str) -> bool:
    """Returns whether the caller may see the bucket's models."""
    return permits(context.caller().grants, _SEE, bucket)


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
    """Returns the model that is to be loaded or let go.

    The permission was checked for the bucket in its name, so a repository_name cannot mean another
    bucket.
    """
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
