"""Cost of one round to the cloud: seconds and memory by the number of replies, for updates of several forms.

The cloud's side of a round runs as it does in a federation, over nodes in the same process that answer at
once: messages are counted and put on file, replies are admitted, kept, averaged, and the round ends with its
checkpoint. Seconds are of the processor; those that the nodes take are left out, as are SuperLink, TLS and
the network. Small rounds are measured three times, with all others between, and the median counts. Each
measurement is in a process of its own, `python -m fedperfit.simulation.benchmark.parts.rounds FORM REPLIES`.
"""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

from rich.table import Table

from fedperfit.protocol.system.errors import RunFailed
from fedperfit.protocol.system.processes import SAFE_PATH, following
from fedperfit.simulation.benchmark.parts.one_round import UpdateKind, measured_round
from fedperfit.simulation.benchmark.record import Record

FORMS = {
    "votes": UpdateKind("sign", layers=2, rank=8, hidden_size=192, columns=14),
    "shifts": UpdateKind("float32", layers=2, rank=8, hidden_size=192),
    "int8": UpdateKind("int8", layers=4, rank=16, hidden_size=576, columns=46),
    "large-shifts": UpdateKind("float32", layers=4, rank=8, hidden_size=768),
}
"""Updates by form: one bit for each of 240 coordinates, 36 B; whole shifts in fp32, 25 kB; a byte for each of
3,008 coordinates; whole shifts of 197 kB."""
REPLIES = {
    "votes": (100, 1_000, 10_000, 100_000),
    "shifts": (100, 1_000, 10_000, 100_000),
    "int8": (100, 1_000, 10_000),
    "large-shifts": (100, 1_000),
}
"""Numbers of replies to one round, by form."""
_TIMES = 3
_SMALL = 1_000
"""Replies up to which a round is measured several times."""
CELLS = [
    (form, replies, time)
    for time in range(_TIMES)
    for form, numbers in REPLIES.items()
    for replies in numbers
    if time == 0 or replies <= _SMALL
]
"""Measurements in the order in which they are taken: form, replies, and how often they were taken before."""


def run(record: Record) -> list[dict[str, Any]]:
    """Measure every form at every number of replies.

    Args:
        record: Measurements on file.
    """
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    seconds: dict[tuple[str, int], list[float]] = defaultdict(list)
    for form, replies, time in CELLS:
        name = f"rounds/{form}/{replies}" + (f"/{time}" if time else "")
        figures = record.measure(name, partial(_apart, form, replies))
        row = rows.setdefault((form, replies), {"form": form, "replies": replies, **figures})
        seconds[form, replies].append(figures["seconds"])
        row["seconds"] = median(seconds[form, replies])
    return list(rows.values())


def _apart(form: str, replies: int) -> dict[str, Any]:
    """Take one measurement in a process of its own."""
    command = [sys.executable, "-P", "-m", "fedperfit.simulation.benchmark.parts.rounds", form, str(replies)]
    child = subprocess.run(
        following(command), env=os.environ | SAFE_PATH, capture_output=True, text=True, check=False
    )
    if child.returncode:
        said = child.stderr.strip().splitlines() or [f"its process ended with {child.returncode}"]
        raise RunFailed(f"rounds of {form}: {said[-1]}")
    figures: dict[str, Any] = json.loads(child.stdout)
    return figures


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Tabulate seconds and memory by form and number of replies."""
    title = "one round at the cloud, without SuperLink and network"
    printed = Table(title=title, min_width=len(title))
    for name in ("updates", "B each", "replies", "s", "ms a reply", "peak MB", "MB down", "MB up"):
        printed.add_column(name, justify="right")
    for row in rows:
        peak = row["peak_bytes"]
        printed.add_row(
            row["form"],
            f"{row['payload_up']:,}",
            f"{row['replies']:,}",
            f"{row['seconds']:.2f}",
            f"{1e3 * row['seconds'] / row['replies']:.2f}",
            "" if peak is None else f"{peak / 1e6:.0f}",
            *(f"{row[way] / 1e6:,.2f}" for way in ("bytes_down", "bytes_up")),
        )
    return printed


if __name__ == "__main__":
    print(json.dumps(measured_round(FORMS[sys.argv[1]], int(sys.argv[2]))))
