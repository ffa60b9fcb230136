"""A process that serves a repository behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.chassis.config import ServiceSettings
from services.chassis.lifecycle.process import Process
from stellwerk.repository.v1 import repository_service_pb2 as messages
from stellwerk.repository.v1 import repository_service_pb2_grpc as stubs
from tests.fakes.guarded_repository import Repository
from tests.fakes.process import Standalone, standalone


@pytest.fixture
async def servicer() -> Repository:
    return Repository()


@pytest.fixture
async def served(servicer: Repository) -> AsyncIterator[Standalone]:
    descriptor = messages.DESCRIPTOR.services_by_name["RepositoryService"]

    def build(process: Process) -> None:
        process.serve(descriptor, stubs.add_RepositoryServiceServicer_to_server, servicer)

    settings = ServiceSettings(log_level="error", drain_seconds=2, max_deadline_seconds=0.5)
    async with standalone("repository", build, settings) as running:
        yield running
