"""Runs a process: settings, logs, lifecycle, server and channels, access, broker, database.

It knows no word of the domain.
"""

import os

# Without its event engine gRPC reads sockets in the thread that wakes asyncio. With it, messages
# pass two or three more threads, each of which has to be woken: half of all context switches of a
# lone call. gRPC reads the variable at its first import, hence here; a release that does not know
# the names ignores them.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
