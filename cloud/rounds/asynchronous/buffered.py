"""Rounds that wait for nobody: clients work at their own pace, and a round ends with every K updates.

FedBuff (Nguyen et al., 2022), in a frozen basis. So many clients are at work at any time, each on the
coordinates that it was sent; who has answered makes room for the next one. Once K updates are there,

    theta <- theta + sum_i s_i w_i Delta_i / sum_i w_i        s_i = 1 / sqrt(1 + tau_i)

with tau_i the rounds that ended since client i was asked, and w_i its items. Who answered in a round is asked
again in the next one at the earliest, so that nobody is in it twice; with K all clients this is a round that
waits for everybody. After a kill all that are asked begin anew with the coordinates of the last round.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fedperfit.cloud.clients.conversation import Conversation
from fedperfit.cloud.clients.coordinate_gate import BasisMissing, CoordinateGate
from fedperfit.cloud.clients.exchange import Exchange, logger
from fedperfit.cloud.clients.replies import Rejected
from fedperfit.cloud.clients.update_file import FiledChange
from fedperfit.cloud.rounds.coordinate_form import CoordinateForm
from fedperfit.cloud.rounds.forms import UpdateForm, mean_loss
from fedperfit.cloud.rounds.round_report import RoundReport
from fedperfit.cloud.rounds.settings import FederationSettings
from fedperfit.protocol.messages.keys import CONTRIBUTE_TYPE, ROUND_KEY
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.system.errors import InputError

_PHASE = "train"


@dataclass(frozen=True)
class _Task:
    """What a client that is at work was asked."""

    round: int
    """Number of the round in which it was."""
    gate: CoordinateGate
    """Gate for its reply, which is of the coordinates that it was sent."""


@dataclass
class _Buffer:
    """One round, as far as it came."""

    round: int
    """Its number, counted from 1."""
    state: Coordinates
    """Coordinates that clients are sent in it."""
    gate: CoordinateGate
    """Gate for updates of these."""
    asked: set[str] = field(default_factory=set)
    """Clients asked in it."""
    updates: dict[str, tuple[FiledChange, float]] = field(default_factory=dict)
    """Admitted updates by client, and their discounts."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Reasons by client that sent none, or none to be admitted."""
    lacked: set[str] = field(default_factory=set)
    """Clients that said they lack the basis, and were sent it."""


class BufferedRounds:
    """Clients at work, and the rounds that their updates make."""

    def __init__(
        self,
        exchange: Exchange,
        form: UpdateForm[Any, Any],
        settings: FederationSettings,
        training: TrainingSettings,
        holders: set[str],
    ) -> None:
        """Ask nobody yet.

        Args:
            exchange: Exchange with the connected clients.
            form: Form of the updates.
            settings: Settings of the rounds.
            training: Settings of the clients' training.
            holders: Clients that have the basis; kept up to date.

        Raises:
            InputError: The updates are no open ones in a basis.
        """
        if not isinstance(form, CoordinateForm) or form.privacy is not None:
            raise InputError(f"buffer-size={settings.buffer_size}: only for open updates in a basis")
        self._form, self._settings, self._training, self._holders = form, settings, training, holders
        self._exchange = exchange
        self._conversation = Conversation(exchange, CONTRIBUTE_TYPE, _PHASE)
        self._tasks: dict[str, _Task] = {}

    def run(self, number: int, state: Coordinates, clients: list[str]) -> tuple[Coordinates, RoundReport]:
        """Run one round, counted from 1, on coordinates that have seen `number` - 1 rounds.

        Args:
            number: Number of the round.
            state: Coordinates that are sent in it.
            clients: Names of all clients, sorted.
        """
        buffer, keep = _Buffer(number, state, self._form.gate(state, number)), self._form.keeper()
        enough = min(self._settings.buffer_size, len(clients))
        while len(buffer.updates) < enough:
            self._ask_idle(buffer, clients)
            if not self._tasks:
                break
            client, reply = self._conversation.next()
            task = self._tasks.pop(client)
            if reply is None:
                buffer.dropped[client] = f"no reply within {self._settings.deadline_seconds:g} s"
                continue
            try:
                change = keep(task.gate.admit(client, reply))
                buffer.updates[client] = (change, 1 / math.sqrt(1 + number - task.round))
            except Rejected as reason:
                buffer.dropped[client] = str(reason)
            except BasisMissing:
                self._holders.discard(client)
                if client in buffer.lacked:
                    buffer.dropped[client] = "it was sent the basis twice and still lacks it"
                buffer.lacked.add(client)
            if self._exchange.on_reply is not None:
                self._exchange.on_reply(_PHASE, len(buffer.updates), enough)
        return self._end(buffer)

    def _ask_idle(self, buffer: _Buffer, clients: Sequence[str]) -> None:
        """Ask idle clients until as many are at work as wanted; those that lack the basis first."""
        busy = {*self._tasks, *buffer.updates, *buffer.dropped}
        idle = [client for client in clients if client not in busy]
        missing = min(self._settings.wanted(len(clients)) - len(self._tasks), len(idle))
        if missing <= 0:
            return
        again = [client for client in idle if client in buffer.lacked][:missing]
        fresh = [client for client in idle if client not in buffer.lacked]
        draw = random.Random(f"{self._settings.seed}/{buffer.round}/{len(buffer.asked)}")
        chosen = sorted([*again, *draw.sample(fresh, min(missing - len(again), len(fresh)))])
        config = self._training.to_config() | {ROUND_KEY: buffer.round}
        requests = self._form.requests(chosen, buffer.state, buffer.round, config, self._holders)
        for client in chosen:
            buffer.asked.add(client)
            self._tasks[client] = _Task(buffer.round, buffer.gate)
            seconds = self._settings.deadline_seconds
            self._conversation.ask(client, requests[client], round=buffer.round, deadline=seconds)

    def _end(self, buffer: _Buffer) -> tuple[Coordinates, RoundReport]:
        for client, why in sorted(buffer.dropped.items()):
            logger.warning("round %d: dropped %s: %s", buffer.round, client, why)
        admitted = [buffer.updates[client] for client in sorted(buffer.updates)]
        changes, state = [change for change, _ in admitted], buffer.state
        skipped = len(changes) < self._settings.min_updates
        if skipped:
            logger.warning("round %d: skipped, %d updates", buffer.round, len(changes))
        else:
            state = self._form.combine(changes, state, buffer.round, [discount for _, discount in admitted])
        self._holders |= set(buffer.updates)
        sent = self._conversation.write(buffer.round)
        return state, RoundReport(
            round=buffer.round,
            asked=sorted(buffer.asked),
            admitted=sorted(buffer.updates),
            dropped=dict(sorted(buffer.dropped.items())),
            skipped=skipped,
            items=sum(change.items for change in changes),
            loss=mean_loss(changes),
            bytes_down=sum(entry.message for entry in sent if entry.direction == "down"),
            bytes_up=sum(entry.message for entry in sent if entry.direction == "up"),
        )
