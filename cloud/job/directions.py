"""The group's directions (CHAMELEON, Zhang et al., 2025), found over clients that keep their pairs.

First each client sends the moments of its pairs, which give the personalized direction and the frame of the
probe; then the probe is searched, each evaluation one round of sums (`protocol/shift/probe.py`). The result
equals that of the pooled pairs. If a client is lost on the way, the search starts again without it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from fedperfit.cloud.clients.exchange import Exchange, logger
from fedperfit.cloud.clients.gathering import gather, statistics
from fedperfit.cloud.clients.replies import Rejected, open_records, read_counts
from fedperfit.protocol.messages.keys import (
    COUNTS_RECORD,
    MOMENTS_KEY,
    MOMENTS_TYPE,
    PROBE_TYPE,
    PROBES_KEY,
    ROUND_KEY,
    SETTINGS_RECORD,
    STATISTICS_RECORD,
    SUMS_KEY,
    VIEW_DIGEST_KEY,
    VIEW_KEY,
)
from fedperfit.protocol.messages.settings import FEWEST_PAIRS, PairSettings
from fedperfit.protocol.messages.statistics import View, moments_from_bytes, sums_from_bytes, to_bytes
from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.shift.probe import Frame, Moments, Probe, leading, minimise
from fedperfit.protocol.system.errors import InputError, count_of

RESTARTS = 2
"""Random starts of the search."""
EVALUATIONS = 20
"""Most evaluations in one search: enough where there are directions to find.

More would cost small models more bytes than their pairs."""
FEWEST_CLIENTS = 2
"""Fewest clients of a group."""
SEARCHES = 5
"""Most searches; one that loses clients is followed by another."""
_GREATEST_LOSS = 2.0
"""Largest loss of one pair: both terms are squares of numbers up to one."""
_GREATEST_STATE = 1e6
"""Largest entry of a hidden state, far above what models have."""
_GREATEST_GRADIENT = 1e4
"""Largest gradient of one pair, far above what models have, so that no client can make everyone's numbers
overflow."""
_T = TypeVar("_T")
Sums = tuple[torch.Tensor, torch.Tensor]
"""Losses (layers, restarts) and gradients (layers, rank + 1, restarts), summed over a client's pairs."""


class Lost(Exception):
    """Clients did not answer, or gave an inadmissible answer; the arguments are their names."""


class GroupDirections:
    """The search for a group's directions over one exchange."""

    def __init__(
        self,
        exchange: Exchange,
        settings: PairSettings,
        *,
        layers: int,
        hidden_size: int,
        deadline: float,
        phase: str = "directions",
    ) -> None:
        """Set up a search.

        Args:
            exchange: Exchange with the connected clients.
            settings: How clients make their preference pairs.
            layers: Decoder layers of the base model.
            hidden_size: Hidden size of the base model.
            deadline: Longest wait for replies in each round, in seconds.
            phase: Phase, for the ledger and the log.
        """
        self.exchange, self.settings = exchange, settings
        self.layers, self.hidden_size = layers, hidden_size
        self.deadline, self.phase = deadline, phase

    def find(self, clients: Sequence[str], *, edited: int, seed: int) -> Directions:
        """Find the directions of the layers with the lowest loss.

        Args:
            clients: Names of the clients.
            edited: Number of layers to edit.
            seed: Seed of the search's starts.

        Raises:
            InputError: If fewer than two clients are left, or some are lost in every search.
        """
        moments = self._moments(sorted(set(clients)))
        for _ in range(SEARCHES):
            if len(moments) < FEWEST_CLIENTS:
                left = count_of(len(moments), "client")
                raise InputError(f"directions: {left} left, at least {FEWEST_CLIENTS} are needed")
            try:
                probe = self._probe(moments, seed)
            except Lost as lost:
                moments = {name: sent for name, sent in moments.items() if name not in lost.args}
                logger.warning("directions: the search starts again with %d clients", len(moments))
                continue
            chosen = sorted(probe.loss.argsort(stable=True)[:edited].tolist())
            personalized = leading(list(moments.values()))
            return Directions.of(chosen, personalized[chosen], probe.theta[chosen])
        raise InputError(f"directions: clients were lost in each of {SEARCHES} searches")

    def _moments(self, clients: Sequence[str]) -> dict[str, Moments]:
        config = {**self.settings.to_config(), ROUND_KEY: 0}

        def admit(client: str, reply: Message) -> Moments:
            records = open_records(
                reply, required={COUNTS_RECORD: MetricRecord, STATISTICS_RECORD: ConfigRecord}
            )
            pairs = read_counts(records[COUNTS_RECORD], round=0, least=FEWEST_PAIRS)
            if pairs > self.settings.items:
                raise Rejected(f"it counts {pairs} pairs, more than the {self.settings.items} asked for")
            data = statistics(records[STATISTICS_RECORD], MOMENTS_KEY)
            sent = moments_from_bytes(data, pairs, self.layers, self.hidden_size)
            for part in (sent.personalized_sum, sent.neutral_sum, sent.rows):
                if float(part.abs().max()) > _GREATEST_STATE * pairs:
                    raise Rejected(f"the moments exceed {_GREATEST_STATE:g} per pair")
            return sent

        contents = {client: RecordDict({SETTINGS_RECORD: ConfigRecord({**config})}) for client in clients}
        return self._ask(contents, MOMENTS_TYPE, 0, admit)

    def _probe(self, moments: Mapping[str, Moments], seed: int) -> Probe:
        frame = Frame.of(list(moments.values()))
        view = View.of(frame)
        data = view.to_bytes()
        pairs = sum(sent.pairs for sent in moments.values())
        evaluations = 0

        def evaluate(probes: torch.Tensor) -> Sums:
            nonlocal evaluations
            evaluations += 1
            sums = self._sums(moments, probes, data, evaluations)
            loss, gradient = (torch.stack(part).sum(0) for part in zip(*sums, strict=True))
            return loss / pairs, gradient / pairs

        seen = replace(frame, axes=view.axes.double())
        return minimise(evaluate, seen, seed, restarts=RESTARTS, evaluations=EVALUATIONS)

    def _sums(
        self, moments: Mapping[str, Moments], probes: torch.Tensor, view: bytes, number: int
    ) -> list[Sums]:
        """Collect everyone's sums; the view goes with the first probes, and later to clients that lack it."""
        config = {**self.settings.to_config(), ROUND_KEY: number}
        config[VIEW_DIGEST_KEY] = hashlib.sha256(view).hexdigest()

        def content(first: bool) -> RecordDict:
            request: dict[str, bytes] = {PROBES_KEY: to_bytes(probes)}
            if first:
                request[VIEW_KEY] = view
            return RecordDict(
                {SETTINGS_RECORD: ConfigRecord({**config}), STATISTICS_RECORD: ConfigRecord({**request})}
            )

        def admit(client: str, reply: Message) -> Sums | None:
            records = open_records(
                reply, required={COUNTS_RECORD: MetricRecord}, optional={STATISTICS_RECORD: ConfigRecord}
            )
            pairs = read_counts(records[COUNTS_RECORD], round=number, least=0)
            if STATISTICS_RECORD not in records:
                if pairs == 0:
                    return None
                raise Rejected(f"it counts {pairs} pairs but sends no {STATISTICS_RECORD}")
            if pairs != moments[client].pairs:
                raise Rejected(f"it counts {pairs} pairs, and counted {moments[client].pairs} before")
            loss, gradient = sums_from_bytes(statistics(records[STATISTICS_RECORD], SUMS_KEY), probes)
            if not bool(((loss >= 0) & (loss <= _GREATEST_LOSS * pairs)).all()):
                raise Rejected(f"the losses are outside 0..{_GREATEST_LOSS * pairs:g}")
            if float(gradient.abs().max()) > _GREATEST_GRADIENT * pairs:
                raise Rejected(f"the gradients exceed {_GREATEST_GRADIENT:g} per pair")
            return loss, gradient

        sums: dict[str, Sums | None] = self._ask(
            {client: content(number == 1) for client in moments}, PROBE_TYPE, number, admit
        )
        without = [client for client, sent in sums.items() if sent is None]
        if without and number > 1:
            sums |= self._ask({client: content(True) for client in without}, PROBE_TYPE, number, admit)
        lost = [client for client in moments if sums.get(client) is None]
        if lost:
            raise Lost(*lost)
        return [sent for _, sent in sorted(sums.items()) if sent is not None]

    def _ask(
        self,
        contents: Mapping[str, RecordDict],
        message_type: str,
        number: int,
        admit: Callable[[str, Message], _T],
    ) -> dict[str, _T]:
        return gather(
            self.exchange,
            contents,
            message_type,
            admit,
            phase=self.phase,
            round=number,
            deadline=self.deadline,
        )
