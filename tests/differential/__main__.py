"""`make conformance`: the suite on Triton, MLServer and Stellwerk, and the differential test;
writes docs/conformance/.

Exit code 1 if Stellwerk fails a case, or differs from Triton in a way that is not explained.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stellwerk.conformance import Report, Subject, connect
from stellwerk.conformance.reporting.markdown import as_markdown
from stellwerk.conformance.reporting.report import sentence
from tests.differential.comparison import Comparison, compare
from tests.differential.requests import requests
from tests.differential.servers import MLServer, Running, Server, Stellwerk, Triton
from tests.differential.suite import conformance, reviver

DOCS = Path(__file__).resolve().parents[2] / "docs" / "conformance"
SEED, COUNT = 1, 2000
# Ids that a server makes up, which change from run to run.
_INVENTED = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="make conformance", description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=SEED, help="where the requests of the comparison come from"
    )
    parser.add_argument("--count", type=int, default=COUNT, help="how many of them")
    parser.add_argument(
        "--skip", action="append", default=[], choices=["mlserver", "suite", "comparison"]
    )
    given = parser.parse_args(arguments)
    DOCS.mkdir(parents=True, exist_ok=True)
    good = True
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        places = [Path(folder) / name for name in ("triton", "mlserver", "stellwerk")]
        for place in places:
            place.mkdir()
        if "mlserver" not in given.skip and "suite" not in given.skip:
            with Running(MLServer(places[1])) as mlserver:
                _suite(mlserver.server)
        with Running(Triton(places[0])) as triton, Running(Stellwerk(places[2])) as ours:
            if "comparison" not in given.skip:
                found = _compare(triton.server, ours.server, given.seed, given.count)
                good = not found.unexplained
            if "suite" not in given.skip:
                _suite(triton.server)
                good = not _suite(ours.server).failed and good
    return 0 if good else 1


def _suite(server: Server) -> Report:
    report = conformance(server)
    (DOCS / f"{server.name}.md").write_text(_INVENTED.sub("…", as_markdown(report)))
    print(f"{server.name}: {sentence(report.counts())}", flush=True)
    return report


def _compare(triton: Server, ours: Server, seed: int, count: int) -> Comparison:
    subjects: list[Subject] = [connect(server.options()) for server in (triton, ours)]
    found = compare(*subjects, requests(seed, count), reviver(triton))
    for subject in subjects:
        subject.close()
    (DOCS / "differential.md").write_text(found.markdown(seed))
    print(f"comparison: {found.agreed.total()} alike, {found.explained.total()} differ as known, "
          f"{len(found.unexplained)} otherwise", flush=True)  # fmt: skip
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
