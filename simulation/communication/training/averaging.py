"""Federated averaging of a model's own parameters (McMahan et al., 2017), in messages like all others.

    theta <- sum_i n_i theta_i / sum_i n_i              fp32
    theta <- theta + sum_i n_i code(theta_i - theta) / sum_i n_i    coarser encodings, a scale for each tensor

Values travel as one vector without names or shapes, which both sides know.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from flwr.app import Message

from fedperfit.cloud.clients.exchange import Exchange
from fedperfit.cloud.rounds.forms import shift_requests
from fedperfit.edge.engine.examples import Example
from fedperfit.edge.records import reply, round_of
from fedperfit.protocol.messages.keys import (
    CONTRIBUTE_TYPE,
    COUNTS_RECORD,
    ITEMS_KEY,
    ROUND_KEY,
    SHIFT_KEY,
    SHIFT_RECORD,
)
from fedperfit.protocol.messages.ledger import Entry, Ledger
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.shift.codecs import CODECS, decode, encode
from fedperfit.protocol.system.seeds import seed_from
from fedperfit.simulation.communication.training.tensor_grid import TensorGrid
from fedperfit.simulation.compare.building_blocks.baseline_training import train

Parameters = Mapping[str, torch.nn.Parameter]
"""Parameters of a model by name."""
_DEADLINE = 86_400.0
_WHOLE = "float32"
"""Encoding in which values travel, not changes."""


@dataclass(frozen=True)
class Schedule:
    """Rounds, and how clients are drawn and train in them."""

    rounds: int
    clients_per_round: int
    """Clients of a round; 0 is all."""
    training: TrainingSettings
    """Training of a client in one round, at a constant rate."""


class Averaging:
    """Trains parameters over clients; some may stay with each client."""

    def __init__(
        self, base: BaseModel, shared: Parameters, own: Parameters, clients: Mapping[str, Sequence[Example]]
    ) -> None:
        """Begin with the parameters' values as they are.

        Args:
            base: Model in which the parameters act.
            shared: Parameters that are averaged, at least one.
            own: Parameters that stay with each client.
            clients: Training examples of each client by name.
        """
        self._base, self._shared, self._own, self._clients = base, dict(shared), dict(own), clients
        self.values = _vector(shared)
        """Averaged values (n,) fp32, one tensor after another."""
        self._start = _vector(own) if own else None
        self._kept: dict[str, torch.Tensor] = {}
        self._sizes = [parameter.numel() for parameter in shared.values()]

    def run(self, schedule: Schedule, codec: str, folder: Path) -> list[Entry]:
        """Train in rounds, put the averaged values into the model, and return the sizes of all messages.

        Args:
            schedule: Rounds and training.
            codec: Encoding of what clients send.
            folder: Folder of the byte ledger.
        """
        self._schedule, self._codec = schedule, codec
        names = sorted(self._clients)
        grid = TensorGrid(names, self._train)
        ledger = Ledger(folder / "ledger" / "train.jsonl")
        exchange = Exchange(grid, ledger, grid.names)
        most = min(schedule.clients_per_round or len(names), len(names))
        for number in range(1, schedule.rounds + 1):
            asked = sorted(random.Random(f"{schedule.training.seed}/{number}").sample(names, most))
            config = schedule.training.to_config() | {ROUND_KEY: number}
            requests = shift_requests(asked, encode(_WHOLE, self.values, seed=0), config)
            replies = exchange.ask(requests, CONTRIBUTE_TYPE, phase="train", round=number, deadline=_DEADLINE)
            self._combine(dict(replies))
        load_vector(self._shared, self.values)
        return ledger.entries()

    def _combine(self, replies: Mapping[str, Message]) -> None:
        total, weights = torch.zeros_like(self.values, dtype=torch.double), 0
        for client in sorted(replies):
            content = replies[client].content
            items = int(content.metric_records[COUNTS_RECORD][ITEMS_KEY])  # type: ignore[arg-type]
            sent = content.array_records[SHIFT_RECORD][SHIFT_KEY].data
            total += items * self._decoded(sent).double()
            weights += items
        before = 0.0 if self._codec == _WHOLE else self.values.double()
        self.values = (before + total / weights).float()

    def _train(self, client: str, message: Message) -> Message:
        """Train as one client does, and reply with what it sends."""
        received = message.content.array_records[SHIFT_RECORD][SHIFT_KEY].data
        before = decode(_WHOLE, received, len(self.values))
        load_vector(self._shared, before)
        if self._start is not None:
            load_vector(self._own, self._kept.get(client, self._start))
        training, examples = self._schedule.training, self._clients[client]
        order = f"{training.seed}/{client}/{round_of(message)}"
        train(
            self._base,
            [*self._shared.values(), *self._own.values()],
            examples,
            epochs=training.epochs,
            learning_rate=training.learning_rate,
            batch_size=training.batch_size,
            order=order,
            last_rate=1.0,
        )
        if self._start is not None:
            self._kept[client] = _vector(self._own)
        return reply(message, len(examples), update=self._encoded(before, order))

    def _encoded(self, before: torch.Tensor, order: str) -> bytes:
        after = _vector(self._shared)
        if not bool(after.isfinite().all()):
            after = before  # as the gate of other rows, which refuses such an update
        if self._codec == _WHOLE:
            return encode(_WHOLE, after, seed=0)
        changes = (after - before).split(self._sizes)
        return b"".join(
            encode(self._codec, change, seed_from(f"{order}/{n}")) for n, change in enumerate(changes)
        )

    def _decoded(self, data: bytes) -> torch.Tensor:
        if self._codec == _WHOLE:
            return decode(_WHOLE, data, len(self.values))
        changes, start = [], 0
        for numbers in self._sizes:
            end = start + CODECS[self._codec].size(numbers)
            changes.append(decode(self._codec, data[start:end], numbers))
            start = end
        return torch.cat(changes)


def load_vector(parameters: Parameters, values: torch.Tensor) -> None:
    """Put a vector (n,) into parameters, one after another."""
    sizes = [parameter.numel() for parameter in parameters.values()]
    with torch.no_grad():
        for parameter, part in zip(parameters.values(), values.split(sizes), strict=True):
            parameter.copy_(part.view_as(parameter))


def _vector(parameters: Parameters) -> torch.Tensor:
    return torch.cat([parameter.detach().cpu().float().flatten() for parameter in parameters.values()])
