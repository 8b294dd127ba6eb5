"""Cost of one round to the cloud: seconds and memory by the number of replies, for two forms of updates.

The cloud's side of a round runs as it does in a federation, over nodes in the same process that answer at
once: messages are counted and put on file, replies are admitted, kept, averaged, and the round ends with its
checkpoint. Seconds are of the processor; those that the nodes take are left out, as are SuperLink,
TLS and the network. Each measurement is
in a process of its own, `python -m fedperfit.simulation.benchmark.parts.rounds FORM REPLIES`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from rich.table import Table

from fedperfit.cloud.clients.exchange import Exchange
from fedperfit.cloud.rounds.checkpoint import Checkpoints
from fedperfit.cloud.rounds.federation import Federation
from fedperfit.cloud.rounds.settings import FederationSettings
from fedperfit.protocol.messages.keys import (
    CONTRIBUTE_TYPE,
    COUNTS_RECORD,
    ITEMS_KEY,
    METRICS_RECORD,
    ROUND_KEY,
    SHIFT_KEY,
    SHIFT_RECORD,
    SHIFT_STYPE,
    UPDATE_KEY,
    UPDATE_RECORD,
)
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.shift.basis import Basis
from fedperfit.protocol.shift.basis_sources import random_basis
from fedperfit.protocol.shift.coordinate_packing import Agreement, pack_update
from fedperfit.protocol.shift.packing import ShiftHeader, pack
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import RunFailed
from fedperfit.protocol.system.flower_internals import InProcessGrid, identify_process, set_message_id
from fedperfit.protocol.system.processes import SAFE_PATH
from fedperfit.protocol.tasks.wording import PromptForm
from fedperfit.simulation.benchmark.record import Record
from fedperfit.simulation.memory import Peak

FORMS = VOTES, SHIFTS = "votes", "shifts"
"""One bit for each of 240 coordinates, 36 bytes; whole shifts in fp32, 25 kB."""
REPLIES = (100, 1_000, 10_000, 100_000)
"""Numbers of replies to one round."""
SHAPE = ShiftShape(layers=(3, 4), rank=8, hidden_size=192, positions=Positions(first=0, last=7))
_HEADER = ShiftHeader(shape=SHAPE, task="LaMP_2M", fingerprint="f" * 64, round=0)
_COLUMNS = 14
_DIFFERENT = 16
"""Different updates that the nodes send in turn."""
_TRAINING = TrainingSettings(
    seed=0,
    epochs=1,
    batch_size=8,
    learning_rate=5e-3,
    weight_decay=0.0,
    clip_norm=1.0,
    max_items=24,
    prompt_form=PromptForm.LAMP,
)


class _Nodes(InProcessGrid):
    """Nodes that answer at once with updates made beforehand.

    Attributes:
        seconds: Seconds that they took.
        names: Client names by node.
    """

    def __init__(self, replies: int, updates: Sequence[RecordDict]) -> None:
        identify_process(1, node_id=1)
        self.names = {node: f"client-{node:07d}" for node in range(1, replies + 1)}
        self.seconds = 0.0
        self._updates = updates
        self._left: set[int] = set(self.names)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes, which are always there."""
        return self.names

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Number the messages by their nodes."""
        started, ids = time.process_time(), []
        for message in messages:
            name = f"{message.metadata.dst_node_id:064x}"
            set_message_id(message, name)
            ids.append(name)
        self.seconds += time.process_time() - started
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Answer messages, each once."""
        started, replies = time.process_time(), []
        for name in message_ids:
            node = int(name, 16)
            self._left.remove(node)
            request = Message(RecordDict(), node, CONTRIBUTE_TYPE)
            set_message_id(request, name)
            replies.append(Message(self._updates[node % len(self._updates)], reply_to=request))
        self.seconds += time.process_time() - started
        return replies


def run(record: Record) -> list[dict[str, Any]]:
    """Measure every form at every number of replies.

    Args:
        record: Measurements on file.
    """
    rows = []
    for replies in REPLIES:
        for form in FORMS:
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


def take(form: str, replies: int) -> dict[str, Any]:
    """Run one round and return its seconds, bytes and peak memory above that before it.

    Args:
        form: `VOTES` or `SHIFTS`.
        replies: Number of clients, all of which answer.
    """
    torch.set_num_threads(1)
    basis = None
    if form == VOTES:
        basis = random_basis(SHAPE, _COLUMNS, task=_HEADER.task, fingerprint=_HEADER.fingerprint, seed=0)
    updates = _shifts() if basis is None else _votes(basis)
    nodes = _Nodes(replies, updates)
    with tempfile.TemporaryDirectory() as place:
        ledger = Ledger(Path(place) / "ledger.jsonl")
        federation = Federation(
            exchange=Exchange(nodes, ledger, nodes.names),
            checkpoints=Checkpoints(Path(place) / "checkpoints"),
            ledger=ledger,
            header=_HEADER,
            settings=FederationSettings(rounds=1, dtype="float32" if basis is None else "sign"),
            training=_TRAINING,
            basis=basis,
            holders=list(nodes.names.values()),
        )
        started = time.process_time()
        with Peak(torch.device("cpu")) as peak:
            federation.train(list(nodes.names.values()), lambda report: None)
        seconds = time.process_time() - started - nodes.seconds
        (report,) = federation.history
        entries = ledger.entries()
        sizes = {way: [one for one in entries if one.direction == way] for way in ("down", "up")}
    assert len(report.admitted) == replies
    return {
        "seconds": seconds,
        "peak_bytes": peak.bytes,
        "messages": len(entries),
        "bytes_down": report.bytes_down,
        "bytes_up": report.bytes_up,
        **{f"payload_{way}": of[0].payload for way, of in sizes.items()},
    }


def _shifts() -> list[RecordDict]:
    start, updates = Shift.identity(SHAPE, seed=0), []
    for number in range(_DIFFERENT):
        draws = torch.Generator().manual_seed(number)
        W = start.W.detach() + 0.01 * torch.randn(start.W.shape, generator=draws)
        data = pack(Shift(SHAPE, R=start.R.detach(), W=W, b=start.b.detach()), _HEADER)
        array = Array(dtype="uint8", shape=(len(data),), stype=SHIFT_STYPE, data=data)
        counts = MetricRecord({ITEMS_KEY: 24, ROUND_KEY: 1})
        records: dict[str, Any] = {SHIFT_RECORD: ArrayRecord({SHIFT_KEY: array}), COUNTS_RECORD: counts}
        updates.append(RecordDict({**records, METRICS_RECORD: MetricRecord({"loss": 12.0})}))
    return updates


def _votes(basis: Basis) -> list[RecordDict]:
    updates = []
    for number in range(_DIFFERENT):
        draws = torch.Generator().manual_seed(number)
        change = 0.01 * torch.randn(basis.numbers, generator=draws)
        data = pack_update(change, Agreement(basis.digest, "sign", 0), seed=number)
        update = ConfigRecord({UPDATE_KEY: data, ITEMS_KEY: 24, ROUND_KEY: 1, "loss": 12.0})
        updates.append(RecordDict({UPDATE_RECORD: update}))
    return updates


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
    print(json.dumps(take(sys.argv[1], int(sys.argv[2]))))
