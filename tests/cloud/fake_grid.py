"""A Flower grid in memory whose replies are scripted, and the honest client that the script starts from."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedperfit.cloud.clients.clock import MACHINE, Clock
from fedperfit.cloud.clients.exchange import Exchange
from fedperfit.cloud.rounds.checkpoint import Checkpoints
from fedperfit.cloud.rounds.federation import Federation
from fedperfit.cloud.rounds.settings import FederationSettings
from fedperfit.protocol.messages.keys import (
    COUNTS_RECORD,
    ITEMS_KEY,
    METRICS_RECORD,
    ROUND_KEY,
    SETTINGS_RECORD,
    SHIFT_KEY,
    SHIFT_RECORD,
    SHIFT_STYPE,
)
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.shift.basis import Basis
from fedperfit.protocol.shift.packing import ShiftHeader, pack, unpack
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.flower_internals import InProcessGrid, identify_process, set_message_id

SHAPE = ShiftShape(layers=(1, 2), rank=2, hidden_size=6, positions=Positions(first=0, last=7))
HEADER = ShiftHeader(shape=SHAPE, task="LaMP_2M", fingerprint="f" * 64, round=0)
TRAINING = TrainingSettings(
    seed=0,
    epochs=1,
    batch_size=4,
    learning_rate=1e-2,
    weight_decay=0.0,
    clip_norm=0.3,
    max_items=0,
    prompt_form="lamp",
)
Answer = Callable[[str, Message], list[Message]]


class FakeGrid(InProcessGrid):
    """Node i is `clients[i]`; replies come in the order of `order`, client names."""

    def __init__(
        self, clients: Mapping[int, str], answer: Answer, order: Sequence[str] | None = None
    ) -> None:
        identify_process(1, node_id=1)
        self.clients, self.answer = dict(clients), answer
        self.order = list(order or self.clients.values())
        self.pushed: list[Message] = []
        self.received: list[tuple[str, Message]] = []
        self.queue: list[tuple[int, str, list[Message]]] = []

    def get_node_ids(self) -> Iterable[int]:
        return list(self.clients)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            message_id = f"message-{len(self.pushed):04d}"
            set_message_id(message, message_id)
            self.pushed.append(message)
            ids.append(message_id)
            name = self.clients[message.metadata.dst_node_id]
            replies = self.answer(name, message)
            if replies:
                self.queue.append((self.order.index(name), message_id, replies))
        self.queue.sort(key=lambda entry: entry[0])
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        if not self.queue or self.queue[0][1] not in set(message_ids):
            return []
        rank, _, replies = self.queue.pop(0)
        self.received += [(self.order[rank], reply) for reply in replies]
        return replies


class FakeClock:
    """Stands in for the module `time`: sleeping takes no time."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def perturbed(shift: Shift, seed: str, *, scale: float = 0.1) -> Shift:
    """`shift` moved at random, with R retracted."""
    generator = torch.Generator().manual_seed(random.Random(seed).getrandbits(60))

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach() + scale * torch.randn(tensor.shape, generator=generator)

    result = Shift(shift.shape, R=moved(shift.R), W=moved(shift.W), b=moved(shift.b))
    for _ in range(3):  # the step is larger than an optimizer's
        result.retract()
    return result


def items_of(client: str) -> int:
    """A number of training pairs that differs between clients."""
    return 1 + sum(client.encode()) % 7


def packed_array(data: bytes) -> Array:
    """The one array of a shift record."""
    return Array(dtype="uint8", shape=(len(data),), stype=SHIFT_STYPE, data=data)


def reply_content(client: str, message: Message, shift: Shift | None = None) -> RecordDict:
    """Make an honest client's reply to `contribute`."""
    received, header = unpack(message.content[SHIFT_RECORD][SHIFT_KEY].data)
    round = message.content[SETTINGS_RECORD][ROUND_KEY]
    shift = shift or perturbed(received, f"{client}/{round}")
    items = items_of(client)
    return RecordDict(
        {
            SHIFT_RECORD: ArrayRecord({SHIFT_KEY: packed_array(pack(shift, header))}),
            COUNTS_RECORD: MetricRecord({ITEMS_KEY: items, ROUND_KEY: round}),
            METRICS_RECORD: MetricRecord({"loss": 0.5 * items}),
        }
    )


def honest(client: str, message: Message) -> list[Message]:
    """The script of a well-behaved client."""
    return [Message(reply_content(client, message), reply_to=message)]


def federation(
    folder: Path,
    grid: Grid,
    names: Mapping[int, str] | None = None,
    basis: Basis | None = None,
    clock: Clock = MACHINE,
    **changes: object,
) -> Federation:
    """A federation of two rounds over all the grid's clients, its state in `folder`."""
    if names is None:
        assert isinstance(grid, FakeGrid)
        names = grid.clients
    values: dict[str, object] = {"rounds": 2, "deadline_seconds": 5.0, "max_items": 6, **changes}
    ledger = Ledger(folder / "ledger.jsonl")
    return Federation(
        exchange=Exchange(grid, ledger, names, clock=clock),
        checkpoints=Checkpoints(folder / "checkpoints"),
        ledger=ledger,
        header=HEADER,
        settings=FederationSettings(**values),
        training=TRAINING,
        basis=basis,
    )


def flat(shift: Shift) -> bytes:
    """The exact values of a shift."""
    return pack(shift, ShiftHeader(shape=shift.shape, task="LaMP_2M", fingerprint="", round=0))
