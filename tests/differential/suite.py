"""The conformance suite on one server; a server that a case has ended is started anew, so that all
cases are tried.
"""

from __future__ import annotations

from stellwerk.conformance import Report, Subject, check, connect
from stellwerk.conformance.suite import Revive
from tests.differential.servers import Server


def conformance(server: Server) -> Report:
    """The report on a running server."""
    return check(server.options(), revive=reviver(server))


def reviver(server: Server) -> Revive:
    """Starts the server anew, and points the subject to where it is then."""

    def revive(subject: Subject) -> bool:
        server.start()
        fresh = connect(server.options())
        subject.close()
        subject.rest, subject.rpc = fresh.rest, fresh.rpc
        return True

    return revive
