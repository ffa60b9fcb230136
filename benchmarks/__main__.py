"""`python -m benchmarks`: measures the figures side by side with other servers and writes
benchmarks/results/.

`overload`, `timeouts`, `profile` and `sdk` are measured only when they are named: the first two
take long, and beside the last two stands no other server. `readme` measures nothing: it writes the
README's comparison from the committed results, as a whole run does.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from benchmarks import comparison, overload, overload_report, report, sdk, timeouts
from benchmarks.earlier import BASELINE
from benchmarks.figures import FULL, QUICK
from benchmarks.profiling import publish
from benchmarks.profiling import run as profiling
from benchmarks.run import FIGURES, run

_START = time.monotonic()


def progress(text: str) -> None:
    """One line for whoever waits."""
    print(f"[{time.monotonic() - _START:4.0f} s] {text}", file=sys.stderr, flush=True)


def main() -> int:
    """The exit code: 1 if a figure could not be measured; a missed target is a finding and no
    failure.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = ", ".join([*FIGURES, *APART])
    parser.add_argument(
        "figures", nargs="*", metavar="FIGURE", help=f"which of {known} [default: all of B]"
    )
    parser.add_argument("--quick", action="store_true", help="fewer, shorter measurements")
    parser.add_argument(
        "--broker", default="auto", help="what `stellwerk up --broker` takes [default: auto]"
    )
    parser.add_argument(
        "--baseline",
        default=BASELINE,
        metavar="COMMIT",
        help=f"the commit that B18 measures beside this checkout [default: {BASELINE}]",
    )
    options = parser.parse_args()
    chosen = options.figures or list(FIGURES)
    if unknown := [name for name in chosen if name not in (*FIGURES, *APART)]:
        parser.error(f"there is no figure {', '.join(unknown)}; there are {known}")
    for name in APART:
        if name in chosen:
            print(APART[name](options.quick, options.broker))
    side_by_side = [name for name in chosen if name in FIGURES]
    return _compare(side_by_side, options) if side_by_side else 0


def _compare(chosen: list[str], options: argparse.Namespace) -> int:
    quick = options.quick
    measured = run(chosen, QUICK if quick else FULL, options.broker, options.baseline, progress)
    whole = not quick and set(chosen) == set(FIGURES)
    path = report.write(measured, report.RESULTS if whole else report.SCRATCH)
    print(report.table(measured))
    if whole:
        comparison.write()
    progress(f"wrote {path}, latest.json and latest.md beside it")
    return 1 if any("failed" in figure for figure in measured["figures"]) else 0


def _overload(quick: bool, broker: str) -> str:
    about, effort = overload_report.head(), overload.QUICK if quick else overload.FULL
    folder = report.SCRATCH if quick else report.RESULTS
    chart = folder / "overload.png" if quick else overload_report.CHART
    table = overload_report.write_overload(
        overload.run(effort, broker, progress), effort, about, folder, chart
    )
    progress(f"wrote {folder / 'overload.md'}, its JSON, and {chart}")
    return table


def _timeouts(quick: bool, broker: str) -> str:
    about, folder = overload_report.head(), report.SCRATCH if quick else report.RESULTS
    return overload_report.write_timeouts(timeouts.run(broker, progress), about, folder)


def _profile(quick: bool, broker: str) -> str:
    about, effort = overload_report.head(), profiling.QUICK if quick else profiling.FULL
    results = report.SCRATCH if quick else report.RESULTS
    documents = report.SCRATCH if quick else publish.DOCUMENTS
    text = publish.publish(
        profiling.run(effort, broker, progress), effort, about, results, documents
    )
    progress(f"wrote {results / 'profile.json'} and {documents / publish.PAGE_NAME}")
    return text


def _readme(quick: bool, broker: str) -> str:
    comparison.write()
    return comparison.block()


def _sdk(quick: bool, broker: str) -> str:
    return sdk.run(broker, 3 if quick else 15, progress)


APART: dict[str, Callable[[bool, str], str]] = {
    "overload": _overload,
    "timeouts": _timeouts,
    "profile": _profile,
    "sdk": _sdk,
    "readme": _readme,
}


if __name__ == "__main__":
    sys.exit(main())
