"""Composes the control plane from its parts, top to bottom."""

from __future__ import annotations

import time

from services.chassis.lifecycle.process import Process
from services.chassis.mongo import MongoWatch, connect
from services.controlplane.audit.entries import MongoEntryStore
from services.controlplane.audit.ledger import AuditLedger
from services.controlplane.config import ControlPlaneSettings
from services.controlplane.identity.bootstrap import Bootstrap
from services.controlplane.identity.key_refresher import KeyRefresher
from services.controlplane.identity.keys import ServiceKeys
from services.controlplane.identity.register import PrincipalRegister
from services.controlplane.identity.sealing import Sealer
from services.controlplane.identity.signing_key_store import SigningKeyStore
from services.controlplane.identity.store import IdentityStore
from services.controlplane.identity.token_issuer import TokenIssuer, TokenPolicy
from services.controlplane.servicer import AuditServicer, ControlPlaneServicer, IdentityServicer
from services.controlplane.status.platform_status import connect_peers, get_status
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
    """Returns the control plane's process, ready to run."""
    client = connect(settings.mongo_url.get_secret_value(), "stellwerk-controlplane")
    database = client[settings.mongo_database]
    entries = MongoEntryStore(database)
    store = IdentityStore(client, settings.mongo_database)
    signing_keys = SigningKeyStore(database, Sealer(settings.root_key.get_secret_value()))

    async def prepare() -> None:
        await store.prepare()
        await signing_keys.prepare()
        await entries.prepare()

    ledger = AuditLedger(entries, time.time)
    tokens = TokenIssuer(
        store,
        signing_keys,
        ServiceKeys(settings.service_keys, time.monotonic),
        TokenPolicy(settings.issuer, settings.token_lifetime_seconds, settings.key_publish_seconds),
        time.time,
        # The process verifies tokens with this bundle; fetching it would be a call to itself.
        lambda trust: process.verifier.trust(trust),
    )
    process = Process("controlplane", settings, audit_sink=ledger, token=tokens.own)
    watch = MongoWatch(client, process.log, prepare)
    register = PrincipalRegister(store, time.time, tokens.refresh)
    bootstrap = Bootstrap(store, ledger, settings.admin_key_file, settings.new_admin_key, time.time)
    refresher = KeyRefresher(watch.prepared.wait, tokens, bootstrap, process.log)
    process.resource("database", None, client.close)
    process.resource("ledger", None, ledger.close)
    process.background("database", watch.run)
    process.background("key refresher", refresher.run)
    process.depends_on("database", lambda: watch.problem)
    process.depends_on("signing keys", lambda: tokens.problem)
    process.depends_on("administrator", lambda: refresher.problem)

    _serve(process, settings, tokens, register, ledger)
    return process


def _serve(
    process: Process,
    settings: ControlPlaneSettings,
    tokens: TokenIssuer,
    register: PrincipalRegister,
    ledger: AuditLedger,
) -> None:
    """Adds the three gRPC services to the process."""
    peers = connect_peers(process, settings)
    process.serve(
        controlplane_service_pb2.DESCRIPTOR.services_by_name["ControlPlaneService"],
        add_ControlPlaneServiceServicer_to_server,
        ControlPlaneServicer(lambda: get_status(peers)),
    )
    process.serve(
        identity_service_pb2.DESCRIPTOR.services_by_name["IdentityService"],
        add_IdentityServiceServicer_to_server,
        IdentityServicer(tokens, register),
    )
    process.serve(
        audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"],
        add_AuditServiceServicer_to_server,
        AuditServicer(ledger),
    )
