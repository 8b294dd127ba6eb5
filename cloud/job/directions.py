"""The group's directions (CHAMELEON, Zhang et al., 2025), found over clients that keep their pairs.

First each client tells the moments of its pairs, which give the personalized direction and the frame of the
probe; then the probe is searched, each evaluation one round of sums (`protocol/shift/probe.py`). The result
is that of the pooled pairs. A client that is lost on the way is left out, and the search begins anew
without it.
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
from fedperfit.protocol.system.errors import InputError

RESTARTS = 2
EVALUATIONS = 20
"""Enough where there are directions to be found; more would cost small models more bytes than their pairs."""
FEWEST_CLIENTS = 2
SEARCHES = 5
"""Begun at most, because clients were lost."""
_GREATEST_LOSS = 2.0
"""Of one pair: both terms of the loss are squares of numbers up to one."""
_GREATEST_STATE = 1e6
_GREATEST_GRADIENT = 1e4
"""Of one pair: far above what models have, so that no client can make everyone's numbers overflow."""
_T = TypeVar("_T")
Sums = tuple[torch.Tensor, torch.Tensor]


class Lost(Exception):
    """Clients did not answer, or not as they may; the argument is their names."""


class GroupDirections:
    """The search over one exchange."""

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
        """layers, hidden_size: the base model's. deadline: seconds a round waits."""
        self.exchange, self.settings = exchange, settings
        self.layers, self.hidden_size = layers, hidden_size
        self.deadline, self.phase = deadline, phase

    def find(self, clients: Sequence[str], *, edited: int, seed: int) -> Directions:
        """The directions of the `edited` layers with the lowest loss.

        Raises InputError when fewer than two clients are left, or when some are lost in every search.
        """
        told = self._moments(sorted(set(clients)))
        for _ in range(SEARCHES):
            if len(told) < FEWEST_CLIENTS:
                raise InputError(
                    f"directions: {len(told)} clients are left, at least {FEWEST_CLIENTS} needed"
                )
            try:
                probe = self._probe(told, seed)
            except Lost as lost:
                told = {client: one for client, one in told.items() if client not in lost.args}
                logger.warning("directions: the search begins anew with %d clients", len(told))
                continue
            chosen = sorted(probe.loss.argsort(stable=True)[:edited].tolist())
            personalized = leading(list(told.values()))
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
                raise Rejected(f"{pairs} pairs of {self.settings.items} items")
            data = statistics(records[STATISTICS_RECORD], MOMENTS_KEY)
            told = moments_from_bytes(data, pairs, self.layers, self.hidden_size)
            for part in (told.personalized_sum, told.neutral_sum, told.rows):
                if float(part.abs().max()) > _GREATEST_STATE * pairs:
                    raise Rejected(f"moments above {_GREATEST_STATE:g} for each pair")
            return told

        contents = {client: RecordDict({SETTINGS_RECORD: ConfigRecord({**config})}) for client in clients}
        return self._ask(contents, MOMENTS_TYPE, 0, admit)

    def _probe(self, told: Mapping[str, Moments], seed: int) -> Probe:
        frame = Frame.of(list(told.values()))
        view = View.of(frame)
        data = view.to_bytes()
        pairs = sum(one.pairs for one in told.values())
        evaluations = 0

        def evaluate(probes: torch.Tensor) -> Sums:
            nonlocal evaluations
            evaluations += 1
            sums = self._sums(told, probes, data, evaluations)
            loss, gradient = (torch.stack(part).sum(0) for part in zip(*sums, strict=True))
            return loss / pairs, gradient / pairs

        seen = replace(frame, axes=view.axes.double())
        return minimise(evaluate, seen, seed, restarts=RESTARTS, evaluations=EVALUATIONS)

    def _sums(
        self, told: Mapping[str, Moments], probes: torch.Tensor, view: bytes, number: int
    ) -> list[Sums]:
        """Everyone's, by client name; the view goes with the first probes, and to who has it no more."""
        config = {**self.settings.to_config(), ROUND_KEY: number}
        config[VIEW_DIGEST_KEY] = hashlib.sha256(view).hexdigest()

        def content(first: bool) -> RecordDict:
            asked: dict[str, bytes] = {PROBES_KEY: to_bytes(probes)}
            if first:
                asked[VIEW_KEY] = view
            return RecordDict(
                {SETTINGS_RECORD: ConfigRecord({**config}), STATISTICS_RECORD: ConfigRecord({**asked})}
            )

        def admit(client: str, reply: Message) -> Sums | None:
            records = open_records(
                reply, required={COUNTS_RECORD: MetricRecord}, optional={STATISTICS_RECORD: ConfigRecord}
            )
            pairs = read_counts(records[COUNTS_RECORD], round=number, least=0)
            if STATISTICS_RECORD not in records:
                if pairs == 0:
                    return None
                raise Rejected(f"{pairs} pairs and no {STATISTICS_RECORD}")
            if pairs != told[client].pairs:
                raise Rejected(f"{pairs} pairs, {told[client].pairs} before")
            loss, gradient = sums_from_bytes(statistics(records[STATISTICS_RECORD], SUMS_KEY), probes)
            if not bool(((loss >= 0) & (loss <= _GREATEST_LOSS * pairs)).all()):
                raise Rejected(f"losses outside 0..{_GREATEST_LOSS * pairs:g}")
            if float(gradient.abs().max()) > _GREATEST_GRADIENT * pairs:
                raise Rejected(f"gradients above {_GREATEST_GRADIENT:g} for each pair")
            return loss, gradient

        found: dict[str, Sums | None] = self._ask(
            {client: content(number == 1) for client in told}, PROBE_TYPE, number, admit
        )
        without = [client for client, sums in found.items() if sums is None]
        if without and number > 1:
            found |= self._ask({client: content(True) for client in without}, PROBE_TYPE, number, admit)
        lost = [client for client in told if found.get(client) is None]
        if lost:
            raise Lost(*lost)
        return [sums for _, sums in sorted(found.items()) if sums is not None]

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
