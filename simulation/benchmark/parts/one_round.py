"""Seconds, bytes and memory of one round, over nodes in the same process that answer at once."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

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
from fedperfit.protocol.settings.fields import WHOLE_SHIFTS, TransportType
from fedperfit.protocol.shift.basis import Basis
from fedperfit.protocol.shift.basis_sources import random_basis
from fedperfit.protocol.shift.coordinate_packing import Agreement, pack_update
from fedperfit.protocol.shift.packing import ShiftHeader, pack
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.flower_internals import InProcessGrid, identify_process, set_message_id
from fedperfit.protocol.tasks.wording import PromptForm
from fedperfit.simulation.cluster.scratch import scratch
from fedperfit.simulation.memory import Peak

_BLOCK = 25
"""Replies whose seconds are taken together."""
_QUIET = 0.1
"""Share of these blocks that are taken for undisturbed."""
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


@dataclass(frozen=True)
class UpdateKind:
    """Updates of one form and size."""

    dtype: TransportType
    """Encoding of the numbers; that of a whole shift, or of coordinates."""
    layers: int
    """Number of shifted layers."""
    rank: int
    """Rank r of the shift."""
    hidden_size: int
    """Width d of the base model."""
    columns: int = 0
    """Columns k of the basis in which updates are coordinates, for encodings that need one."""

    @property
    def header(self) -> ShiftHeader:
        """Header of the shifts."""
        shape = ShiftShape(
            layers=tuple(range(self.layers)),
            rank=self.rank,
            hidden_size=self.hidden_size,
            positions=Positions(first=0, last=7),
        )
        return ShiftHeader(shape=shape, task="LaMP_2M", fingerprint="f" * 64, round=0)

    @cached_property
    def basis(self) -> Basis | None:
        """Basis of the coordinates; None for whole shifts."""
        if self.dtype in WHOLE_SHIFTS:
            return None
        header = self.header
        return random_basis(
            header.shape, self.columns, task=header.task, fingerprint=header.fingerprint, seed=0
        )

    def made(self) -> list[RecordDict]:
        """Make a few different updates, as clients would send them."""
        basis = self.basis
        return [
            self._shift(number) if basis is None else self._coordinates(basis, number)
            for number in range(_DIFFERENT)
        ]

    def _shift(self, number: int) -> RecordDict:
        header = self.header
        start, draws = Shift.identity(header.shape, seed=0), torch.Generator().manual_seed(number)
        W = start.W.detach() + 0.01 * torch.randn(start.W.shape, generator=draws)
        data = pack(Shift(header.shape, R=start.R.detach(), W=W, b=start.b.detach()), header)
        array = Array(dtype="uint8", shape=(len(data),), stype=SHIFT_STYPE, data=data)
        counts = MetricRecord({ITEMS_KEY: 24, ROUND_KEY: 1})
        records: dict[str, Any] = {SHIFT_RECORD: ArrayRecord({SHIFT_KEY: array}), COUNTS_RECORD: counts}
        return RecordDict({**records, METRICS_RECORD: MetricRecord({"loss": 12.0})})

    def _coordinates(self, basis: Basis, number: int) -> RecordDict:
        draws = torch.Generator().manual_seed(number)
        change = 0.01 * torch.randn(basis.numbers, generator=draws)
        data = pack_update(change, Agreement(basis.digest, self.dtype, 0), seed=number)
        update = ConfigRecord({UPDATE_KEY: data, ITEMS_KEY: 24, ROUND_KEY: 1, "loss": 12.0})
        return RecordDict({UPDATE_RECORD: update})


class _Nodes(InProcessGrid):
    """Nodes that answer at once with updates made beforehand.

    Attributes:
        seconds: Seconds that they took.
        marks: Processor seconds of all others at every so many replies, from the first on.
        names: Client names by node.
    """

    def __init__(self, clients: int, updates: Sequence[RecordDict]) -> None:
        identify_process(1, node_id=1)
        self.names = {node: f"client-{node:07d}" for node in range(1, clients + 1)}
        self.seconds = 0.0
        self.marks: list[float] = []
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
            if len(self._left) % _BLOCK == 0:
                self.marks.append(started - self.seconds)
            self._left.remove(node)
            request = Message(RecordDict(), node, CONTRIBUTE_TYPE)
            set_message_id(request, name)
            replies.append(Message(self._updates[node % len(self._updates)], reply_to=request))
        self.seconds += time.process_time() - started
        return replies


def measured_round(kind: UpdateKind, replies: int, clients: int | None = None) -> dict[str, Any]:
    """Run one round; its processor seconds, bytes, and peak memory above that before it.

    Other work on a machine makes processor seconds up to twice as many. Seconds are those that the round
    would take if all blocks of its replies took what the quietest tenth of them did.

    Args:
        kind: Form and size of the updates.
        replies: Number of clients that are asked, all of which answer.
        clients: Number of clients that are connected; None for those that are asked.
    """
    torch.set_num_threads(1)
    nodes = _Nodes(clients or replies, kind.made())
    names = list(nodes.names.values())
    with scratch() as place:
        ledger = Ledger(place / "ledger.jsonl")
        federation = Federation(
            exchange=Exchange(nodes, ledger, nodes.names),
            checkpoints=Checkpoints(place / "checkpoints"),
            ledger=ledger,
            header=kind.header,
            settings=FederationSettings(rounds=1, dtype=kind.dtype, clients_per_round=replies),
            training=_TRAINING,
            basis=kind.basis,
            holders=names,
        )
        started = time.process_time()
        with Peak(torch.device("cpu")) as peak:
            federation.train(names, lambda report: None)
        seconds = time.process_time() - started - nodes.seconds
        (report,) = federation.history
        entries = ledger.entries()
        sizes = {way: [one for one in entries if one.direction == way] for way in ("down", "up")}
    assert len(report.admitted) == replies
    return {
        "seconds": seconds / _slowed(nodes.marks),
        "peak_bytes": peak.bytes,
        "messages": len(entries),
        "bytes_down": report.bytes_down,
        "bytes_up": report.bytes_up,
        **{f"payload_{way}": of[0].payload for way, of in sizes.items()},
    }


def _slowed(marks: Sequence[float]) -> float:
    """Return by what factor blocks took longer than undisturbed ones; 1 where there are too few to tell."""
    blocks = np.diff(np.array(marks))
    return float(blocks.mean() / np.quantile(blocks, _QUIET)) if len(blocks) > 1 else 1.0
