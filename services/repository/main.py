"""Composes the repository from its parts, top to bottom."""

from __future__ import annotations

from services.chassis import mongo
from services.chassis.lifecycle.process import Process
from services.repository.artifacts.artifact_store import ArtifactStore
from services.repository.artifacts.downloads import Downloads
from services.repository.artifacts.sweeper import Sweeper
from services.repository.artifacts.upload_sessions import UploadSessions
from services.repository.artifacts.uploads import Uploads
from services.repository.catalogue.aliases import Aliases
from services.repository.catalogue.buckets import Buckets
from services.repository.catalogue.catalogue import Catalogue
from services.repository.catalogue.models import Models
from services.repository.config import RepositorySettings
from services.repository.events.outbox import EventBroker, Outbox, OutboxPublisher
from services.repository.metrics import RepositoryMetrics
from services.repository.mongo import Database
from services.repository.servicer import RepositoryServicer
from stellwerk.repository.v1 import repository_service_pb2, repository_service_pb2_grpc


def compose(settings: RepositorySettings) -> Process:
    """Returns the repository's process, ready to run."""
    process = Process("repository", settings)
    assemble(process, settings, process.open_broker())
    return process


def assemble(process: Process, settings: RepositorySettings, broker: EventBroker) -> None:
    """Adds the repository's service, background tasks and dependencies to a process."""
    log = process.log
    metrics = RepositoryMetrics(process.metrics)

    client = mongo.connect(settings.mongo_url.get_secret_value(), process.instance)
    database = Database(client, settings.mongo_database)
    watch = mongo.MongoWatch(client, process.log, database.prepare)
    process.resource("database", None, client.close)
    process.background("database", watch.run)
    process.depends_on("database", lambda: watch.problem)

    outbox = Outbox(database)
    publisher = OutboxPublisher(outbox, broker, metrics, log, settings.relay_seconds)
    process.background("outbox", publisher.run)

    buckets = Buckets(database)
    models = Models(database, outbox)
    aliases = Aliases(database, outbox, models)
    artifacts = ArtifactStore(database, settings.max_transfers, metrics)
    catalogue = Catalogue(buckets, models, aliases, artifacts.remove)

    sessions = UploadSessions(database, log)
    uploads = Uploads(settings, buckets, models, sessions, artifacts, metrics, log)
    downloads = Downloads(settings.download_piece_bytes, models, artifacts, metrics, log)
    sweeper = Sweeper(sessions, artifacts, metrics, log, settings.sweep_seconds)
    process.on_drain(uploads.drain)
    process.background("sweeper", sweeper.run)

    descriptor = repository_service_pb2.DESCRIPTOR.services_by_name["RepositoryService"]
    process.serve(
        descriptor,
        repository_service_pb2_grpc.add_RepositoryServiceServicer_to_server,
        RepositoryServicer(catalogue, uploads, downloads),
    )
