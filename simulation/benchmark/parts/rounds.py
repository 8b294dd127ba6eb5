"""Cost of one round to the cloud: seconds and memory by the number of replies, for updates of several forms.

The cloud's side of a round runs as it does in a federation, over nodes in the same process that answer at
once: messages are counted and put on file, replies are admitted, kept, averaged, and the round ends with its
checkpoint. Seconds are of the processor, the fewest of a few rounds; those that the nodes take are left out,
as are SuperLink, TLS and the network. Each measurement is in a process of its own,
`python -m fedperfit.simulation.benchmark.parts.rounds FORM REPLIES`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from rich.table import Table

from fedperfit.protocol.system.errors import RunFailed
from fedperfit.protocol.system.processes import SAFE_PATH
from fedperfit.simulation.benchmark.parts.one_round import UpdateKind, fastest_round
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
_LONG = 100_000
"""Replies from which on a round is run once."""


def run(record: Record) -> list[dict[str, Any]]:
    """Measure every form at every number of replies.

    Args:
        record: Measurements on file.
    """
    rows = []
    for form, numbers in REPLIES.items():
        for replies in numbers:
            figures = record.measure(f"rounds/{form}/{replies}", partial(_apart, form, replies))
            rows.append({"form": form, "replies": replies, **figures})
    return rows


def _apart(form: str, replies: int) -> dict[str, Any]:
    """Take one measurement in a process of its own."""
    command = [sys.executable, "-P", "-m", "fedperfit.simulation.benchmark.parts.rounds", form, str(replies)]
    child = subprocess.run(command, env=os.environ | SAFE_PATH, capture_output=True, text=True, check=False)
    if child.returncode:
        raise RunFailed(f"rounds of {form}: {child.stderr.strip().splitlines()[-1]}")
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


def _take(form: str, replies: int) -> dict[str, Any]:
    return fastest_round(FORMS[form], replies, times=1 if replies >= _LONG else _TIMES)


if __name__ == "__main__":
    print(json.dumps(_take(sys.argv[1], int(sys.argv[2]))))
