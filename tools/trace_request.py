"""Traces one request through the platform's five processes and prints its life.

`python tools/trace_request.py [infer|upload] [--json FILE] [--hints] [--check] [--page FILE]
[--most-files N] [--most-returns N]`

The script starts what `stellwerk up` starts, in a temporary folder and on free ports. It stores a
small scikit-learn model, warms the request up, records it, and stops everything. It prints each
product function that the request reaches, in order of time and with its process, and how many
files a reader opens and turns back to. `request_trace.life` defines that measure and says how the
platform's own work is left out. `--check` compares the trace with the page of that request:
`docs/life-of-a-request.md` or `docs/life-of-an-upload.md`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_ROOT), str(_ROOT / "generated"), str(_ROOT / "sdk")]

from tools.request_trace import calls, events, life, page, report, stack  # noqa: E402 - needs the path

PAGES = {
    "infer": _ROOT / "docs" / "life-of-a-request.md",
    "upload": _ROOT / "docs" / "life-of-an-upload.md",
}


def trace(kind: str) -> report.Traced:
    """Runs the platform and returns the life of an `infer` or an `upload`. Raises NotUp."""
    with tempfile.TemporaryDirectory(prefix="stellwerk-trace-") as name:
        folder = Path(name)
        switch = stack.Switch(folder)
        with stack.platform(folder / "data", folder) as running:
            recordings = calls.record(kind, running, switch)
        found = events.read(folder)
    asked = [one for one in recordings if one.began]
    busy = [one.number for one in asked]
    own = life.own_edges(found.events, busy, [one.number for one in recordings if not one.began])
    lives = [life.steps(found, own, one) for one in asked]
    return report.Traced(
        kind,
        found,
        own,
        life.rare_edges(found.events, busy, own),
        life.median_of(lives),
        [life.count(one) for one in lives],
    )


def check(traced: report.Traced, path: Path) -> list[str]:
    """Returns what the page says and the trace does not show."""
    if not path.exists():
        return [f"there is no {path}"]
    return page.problems(page.parse(path.read_text(encoding="utf-8")), traced.visits)


def _excess(what: str, count: int, most: int | None) -> list[str]:
    return [f"{count} {what}, at most {most}"] if most is not None and count > most else []


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns 1 if the platform does not come up or the page contradicts it."""
    parser = argparse.ArgumentParser(description="Traces one request through the platform.")
    parser.add_argument("kind", nargs="?", choices=sorted(calls.PLANS), default="infer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to FILE")
    parser.add_argument("--hints", action="store_true", help="say which files could be merged")
    parser.add_argument(
        "--check", action="store_true", help="fail if the page contradicts the trace"
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="another page to check")
    parser.add_argument("--most-files", type=int, metavar="N", help="fail above N files")
    parser.add_argument("--most-returns", type=int, metavar="N", help="fail above N returns")
    options = parser.parse_args(arguments)
    # Ends as Ctrl-C does, so that the platform is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        traced = trace(options.kind)
    except stack.NotUp as exc:
        print(exc, file=sys.stderr)
        return 1
    print(report.table(traced))
    if options.hints:
        print(report.hints(traced))
    print(f"\n{report.summary(traced)}")
    if options.json:
        options.json.write_text(json.dumps(report.document(traced), indent=1) + "\n")
    problems = check(traced, options.page or PAGES[options.kind]) if options.check else []
    problems += _excess("files", traced.count.files, options.most_files)
    problems += _excess("returns", traced.count.returns, options.most_returns)
    if options.check and not problems:
        print("The page and the recording agree.")
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
