"""The repository, put together from top to bottom."""

from __future__ import annotations

from services.chassis import mongo
from services.chassis.lifecycle.process import Process
from services.repository.artifacts.downloads import Downloads
from services.repository.artifacts.sweeper import Sweeper
from services.repository.artifacts.transfers import Transfers
from services.repository.artifacts.upload_sessions import Tickets
from services.repository.artifacts.uploads import Uploads
from services.repository.catalogue.aliases import Aliases
from services.repository.catalogue.buckets import Buckets
from services.repository.catalogue.catalogue import Catalogue
from services.repository.catalogue.store import Store
from services.repository.config import RepositorySettings
from services.repository.events.outbox_publisher import Publisher, Relay
from services.repository.metrics import Gauges
from services.repository.mongo import Artifacts, Changes, Database
from services.repository.servicer import RepositoryServicer
from stellwerk.repository.v1 import repository_service_pb2, repository_service_pb2_grpc


def compose(settings: RepositorySettings) -> Process:
    """The process, ready to run."""
    process = Process("repository", settings)
    assemble(process, settings, process.open_broker())
    return process


def assemble(process: Process, settings: RepositorySettings, broker: Publisher) -> None:
    """Puts the repository into a process."""
    log, gauges = process.log, Gauges(process.metrics)

    client = mongo.connect(settings.mongo_url.get_secret_value(), process.instance)
    database = Database(client, settings.mongo_database)
    watch = mongo.MongoWatch(client, database.prepare)
    process.resource("database", None, client.close)
    process.background("database", watch.run)
    process.depends_on("database", lambda: watch.problem)

    changes, tickets, artifacts = Changes(database), Tickets(database), Artifacts(database)
    buckets, store = Buckets(database), Store(database, changes, tickets)
    aliases = Aliases(database, changes, store)
    transfers = Transfers(settings.max_transfers, gauges)
    uploads = Uploads(settings, buckets, store, tickets, artifacts, transfers, gauges, log)
    downloads = Downloads(settings.download_piece_bytes, store, artifacts, transfers, gauges, log)
    process.on_drain(uploads.drain)

    relay = Relay(changes, broker, gauges, log, settings.relay_seconds)
    process.background("relay", relay.run)
    process.background(
        "sweeper", Sweeper(tickets, artifacts, gauges, log, settings.sweep_seconds).run
    )

    servicer = RepositoryServicer(Catalogue(buckets, store, aliases, artifacts), uploads, downloads)
    descriptor = repository_service_pb2.DESCRIPTOR.services_by_name["RepositoryService"]
    process.serve(
        descriptor, repository_service_pb2_grpc.add_RepositoryServiceServicer_to_server, servicer
    )
