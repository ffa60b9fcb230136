"""The Python SDK of Stellwerk: store a model with one line, predict with another.

from stellwerk.client import connect
sw = connect("http://127.0.0.1:8080", token=...)
sw.models.put(clf, "iris")
sw.runtime.model("iris").predict(X)
"""

from __future__ import annotations

from stellwerk.client import errors
from stellwerk.client.platform import AsyncClient, Client, connect, connect_async

__all__ = ["AsyncClient", "Client", "connect", "connect_async", "errors"]
