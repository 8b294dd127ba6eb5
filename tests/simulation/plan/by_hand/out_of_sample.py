"""What `fedperfit plan` says, beside what is measured, of rounds that its constants were not taken from.

The benchmark's rounds give the constants; the others have updates of other sizes, of
base models of other widths, other numbers of replies, and twice as many clients connected as are asked. Each
is measured in a process of its own, and small ones a few times more, in turn, of which the median counts. An
interrupted run goes on from its file. Half an hour on a busy machine.

    python -m tests.simulation.plan.by_hand.out_of_sample --out benchmark.json
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from fedperfit.simulation.benchmark.origin import origin
from fedperfit.simulation.benchmark.parts.one_round import UpdateKind, measured_round
from fedperfit.simulation.benchmark.parts.rounds import FORMS, REPLIES
from fedperfit.simulation.benchmark.record import Record
from fedperfit.simulation.plan.constants import Constants, read_constants
from fedperfit.simulation.plan.costs import Assumptions, costs

OTHERS = {
    "votes/44": UpdateKind("sign", layers=2, rank=8, hidden_size=288, columns=18),
    "int8/806": UpdateKind("int8", layers=4, rank=4, hidden_size=576, columns=49),
    "shifts/3272": UpdateKind("float32", layers=1, rank=2, hidden_size=192),
    "shifts/73986": UpdateKind("float32", layers=4, rank=4, hidden_size=576),
}
"""Updates by their form in a plan and their bytes."""
OTHER_REPLIES = (150, 1_500, 8_000)
SMALL = 1_500
PASSES = 4
CELLS = [
    *((name, replies) for name in REPLIES for replies in REPLIES[name]),
    *((name, replies) for name in OTHERS for replies in OTHER_REPLIES),
]


def measured(name: str, replies: int) -> dict[str, Any]:
    """Measure a round of a form, in this process."""
    if name in FORMS:
        return measured_round(FORMS[name], replies)
    return measured_round(OTHERS[name], replies, clients=2 * replies)


def apart(name: str, replies: int) -> dict[str, Any]:
    """Measure a round in a process of its own."""
    child = [
        sys.executable,
        "-m",
        "tests.simulation.plan.by_hand.out_of_sample",
        "--take",
        name,
        str(replies),
    ]
    figures: dict[str, Any] = json.loads(
        subprocess.run(child, capture_output=True, check=True, text=True).stdout
    )
    return figures


def measure_all(record: Record) -> dict[tuple[str, int], dict[str, Any]]:
    """Measure all rounds; their figures by form and replies."""
    rows = {}
    for name, replies in sorted(CELLS, key=lambda cell: cell[1]):
        figures = record.measure(
            f"rounds/{name}/{replies}", lambda name=name, replies=replies: apart(name, replies)
        )
        rows[name, replies] = {"form": name, "replies": replies, **figures}
    seconds = {cell: [row["seconds"]] for cell, row in rows.items()}
    for number in range(PASSES):
        for (name, replies), taken in seconds.items():
            if replies <= SMALL:
                again = record.measure(
                    f"rounds/{name}/{replies}/{number}",
                    lambda name=name, replies=replies: {"seconds": measured(name, replies)["seconds"]},
                )
                taken.append(again["seconds"])
    for cell, row in rows.items():
        row["seconds"] = median(seconds[cell])
    record.put("rounds", [row for (name, _), row in rows.items() if name in FORMS])
    record.put("others", [row for (name, _), row in rows.items() if name in OTHERS])
    return rows


def planned(constants: Constants, replies: int) -> dict[str, float]:
    """Return what a plan says of a round.

    Args:
        constants: Costs of rounds with such updates.
        replies: Clients that are asked, all of which answer; as many others are connected.
    """
    told = costs(
        Assumptions(
            clients=2 * replies,
            connected=1.0,
            answering=1.0,
            round_size=replies,
            rounds=1,
            device_seconds=0.0,
            bandwidth=1e9,
            once_bytes=0,
        ),
        constants,
    )
    return {
        "messages": told.messages,
        "MB down": told.bytes_down / 1e6,
        "MB up": told.bytes_up / 1e6,
        "processor s": told.cloud_seconds,
        "MB memory": constants.memory_of(2 * replies, replies, replies) / 1e6,
    }


def main() -> None:
    """Print both, and by how much a plan is off."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("benchmark.json"))
    parser.add_argument("--take", nargs=2, metavar=("FORM", "REPLIES"))
    asked = parser.parse_args()
    if asked.take:
        print(json.dumps(measured(asked.take[0], int(asked.take[1]))))
        return
    record = Record(asked.out, {}, lambda name, figures: print(name, figures, flush=True), origin(""))
    rows = measure_all(record)
    for name in OTHERS:
        form, _, size = name.partition("/")
        constants = read_constants(asked.out, form).of_size(int(size), None)
        for replies in OTHER_REPLIES:
            row, told = rows[name, replies], planned(constants, replies)
            assert row["payload_up"] == int(size), row
            found = {
                "messages": row["messages"],
                "MB down": row["bytes_down"] / 1e6,
                "MB up": row["bytes_up"] / 1e6,
                "processor s": row["seconds"],
                "MB memory": row["peak_bytes"] / 1e6,
            }
            for what, value in found.items():
                print(
                    f"{name:<13}{replies:>7,} {what:<12} planned {told[what]:>9,.2f}  "
                    f"measured {value:>9,.2f}  {told[what] / value - 1:+.0%}"
                )


if __name__ == "__main__":
    main()
