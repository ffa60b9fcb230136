"""What the soaks found, in JSON and as a page to read. A soak that was not run this time keeps its
last result.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import facts
from soak.catalogue import Outcome

RESULTS = Path(__file__).parent / "results"


def write(outcomes: dict[str, Outcome], folder: Path = RESULTS) -> Path:
    """Writes latest.json and latest.md; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "latest.json"
    kept: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    commit, dirty = facts.commit()
    environment = facts.environment()
    run = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit + (" with local changes" if dirty else ""),
        "machine": (
            f"{environment['cpu']}, {environment['cores']} cores, {environment['memory_gib']} GiB, "
            f"{environment['system']}, Python {environment['python']}"
        ),
    }
    kept.update({name: {**run, **asdict(outcome)} for name, outcome in outcomes.items()})
    file.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    page = folder / "latest.md"
    page.write_text(
        "\n".join(
            ["# Soaks", "", *(line for name in sorted(kept) for line in _section(name, kept[name]))]
        )
    )
    return page


def _section(name: str, found: dict[str, Any]) -> list[str]:
    columns = found["columns"]
    return [
        f"## {name}: {'kept' if found['kept'] else 'not kept'}",
        "",
        f"{found['promise'][0].upper()}{found['promise'][1:]}.",
        "",
        f"Measured {found['when']} at commit {found['commit']}. {found['machine']}.",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
        *(f"| {' | '.join(str(cell) for cell in row)} |" for row in found["rows"]),
        "",
    ]
