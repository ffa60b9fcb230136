"""How a process runs: config, logs, lifecycle, server, interceptors, clients, auth, broker, mongo.

No domain words live here."""

import os

# gRPC can read sockets in the thread that tells asyncio of what was read. Its event engine hands
# everything through two or three more threads first, each of which has to be woken: for a lone call
# that is half of all context switches.
# Read when gRPC is first imported, hence here; a name that some version of gRPC does not know
# changes nothing.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
