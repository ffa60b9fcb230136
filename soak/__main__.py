"""`python -m soak [NAME …]`: runs the soaks and writes soak/results/latest.json and latest.md."""

from __future__ import annotations

import argparse
import sys
import time

from soak import report
from soak.catalogue import SOAKS

_START = time.monotonic()


def progress(text: str) -> None:
    """One line for whoever waits."""
    print(f"[{time.monotonic() - _START:4.0f} s] {text}", file=sys.stderr, flush=True)


def main() -> int:
    """The exit code: 1 if a promise was not kept."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which of {', '.join(SOAKS)} [default: all]"
    )
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in SOAKS]:
        parser.error(f"there is no soak {', '.join(unknown)}; there are {', '.join(SOAKS)}")
    outcomes = {}
    for name in options.names or SOAKS:
        progress(f"{name} begins")
        outcomes[name] = SOAKS[name](progress)
        progress(f"{name}: {'kept' if outcomes[name].kept else 'NOT KEPT'}")
        page = report.write({name: outcomes[name]})
    print(page.read_text())
    return 0 if all(outcome.kept for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
