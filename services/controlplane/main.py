"""The composition root: what the control plane is made of, top to bottom."""

from __future__ import annotations

import time

from services.chassis.lifecycle.process import Process
from services.chassis.mongo import MongoWatch, connect
from services.controlplane.audit.entries import MongoEntries
from services.controlplane.audit.ledger import Ledger
from services.controlplane.config import ControlPlaneSettings
from services.controlplane.identity.bootstrap import Bootstrap
from services.controlplane.identity.key_refresher import Upkeep, in_turn
from services.controlplane.identity.keys import ServiceKeys
from services.controlplane.identity.register import Register
from services.controlplane.identity.sealing import Sealer
from services.controlplane.identity.store import IdentityStore
from services.controlplane.identity.tokens import Policy, Tokens
from services.controlplane.servicer import AuditServicer, ControlPlaneServicer, IdentityServicer
from services.controlplane.status.peers import connect_peers
from services.controlplane.status.platform_status import get_status
from stellwerk.controlplane.v1 import (
    audit_service_pb2,
    controlplane_service_pb2,
    identity_service_pb2,
)
from stellwerk.controlplane.v1.audit_service_pb2_grpc import add_AuditServiceServicer_to_server
from stellwerk.controlplane.v1.controlplane_service_pb2_grpc import (
    add_ControlPlaneServiceServicer_to_server,
)
from stellwerk.controlplane.v1.identity_service_pb2_grpc import (
    add_IdentityServiceServicer_to_server,
)


def compose(settings: ControlPlaneSettings) -> Process:
    """Everything the control plane is made of."""
    client = connect(settings.mongo_url.get_secret_value(), "stellwerk-controlplane")
    entries = MongoEntries(client[settings.mongo_database])
    store = IdentityStore(
        client, settings.mongo_database, Sealer(settings.root_key.get_secret_value())
    )
    watch = MongoWatch(client, in_turn(store.prepare, entries.prepare))
    ledger = Ledger(entries, time.time)
    policy = Policy(settings.issuer, settings.token_lifetime_seconds, settings.key_publish_seconds)
    service_keys = ServiceKeys(settings.service_keys, time.monotonic)
    # Tokens are verified with what they are issued with: the control plane needs no way to itself
    # over the network.
    tokens = Tokens(
        store, service_keys, policy, time.time, lambda trust: process.verifier.trust(trust)
    )
    process = Process("controlplane", settings, ledger=ledger, token=tokens.own)
    register = Register(store, time.time, tokens.refresh)
    bootstrap = Bootstrap(store, ledger, settings.admin_key_file, settings.new_admin_key, time.time)
    upkeep = Upkeep(watch.prepared.wait, tokens, bootstrap, process.log)
    process.resource("database", None, client.close)
    process.resource("ledger", None, ledger.close)
    process.background("database", watch.run)
    process.background("upkeep", upkeep.run)
    process.depends_on("database", lambda: watch.problem)
    process.depends_on("signing keys", lambda: tokens.problem)
    process.depends_on("administrator", lambda: upkeep.problem)

    peers = connect_peers(process, settings)
    platform = controlplane_service_pb2.DESCRIPTOR.services_by_name["ControlPlaneService"]
    identity = identity_service_pb2.DESCRIPTOR.services_by_name["IdentityService"]
    audit = audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"]
    status = ControlPlaneServicer(lambda: get_status(peers))
    process.serve(platform, add_ControlPlaneServiceServicer_to_server, status)
    process.serve(
        identity, add_IdentityServiceServicer_to_server, IdentityServicer(tokens, register)
    )
    process.serve(audit, add_AuditServiceServicer_to_server, AuditServicer(ledger))
    return process
