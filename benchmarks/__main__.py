"""`python -m benchmarks`: measures the figures side by side with other servers and writes benchmarks/results/."""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks import report
from benchmarks.figures import FULL, QUICK
from benchmarks.run import FIGURES, run

_START = time.monotonic()


def progress(text: str) -> None:
    """One line for whoever waits."""
    print(f"[{time.monotonic() - _START:4.0f} s] {text}", file=sys.stderr, flush=True)


def main() -> int:
    """The exit code: 1 if a figure could not be measured; a missed target is a finding and no failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"which of {', '.join(FIGURES)} [default: all]")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter pairs, under three minutes")
    parser.add_argument("--broker", default="auto", help="what `stellwerk up --broker` takes [default: auto]")
    options = parser.parse_args()
    chosen = options.figures or list(FIGURES)
    if unknown := [name for name in chosen if name not in FIGURES]:
        parser.error(f"there is no figure {', '.join(unknown)}; there are {', '.join(FIGURES)}")
    measured = run(chosen, QUICK if options.quick else FULL, options.broker, progress)
    path = report.write(measured)
    print(report.table(measured))
    progress(f"wrote {path.relative_to(report.RESULTS.parent.parent)}, latest.json and latest.md beside it")
    return 1 if any("failed" in figure for figure in measured["figures"]) else 0


if __name__ == "__main__":
    sys.exit(main())
