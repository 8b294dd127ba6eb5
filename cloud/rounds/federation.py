"""The round loop: sample, broadcast, collect, admit, aggregate, checkpoint.

Flower's own loop waits for everyone, ends the run on one bad reply and cannot resume; this one has a
deadline, a goal and an admission gate, and after a kill goes on from the last checkpoint. With neither
over-selection nor a goal below one the result does not depend on the order of replies.
"""

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedperfit.cloud.clients.admission import AdmissionGate, Counts, Update, admit_counts
from fedperfit.cloud.clients.exchange import Exchange, logger
from fedperfit.cloud.clients.gathering import gather
from fedperfit.cloud.clients.metric_rules import TRAINING_METRICS, MetricRule, evaluation_metrics
from fedperfit.cloud.clients.replies import Rejected
from fedperfit.cloud.rounds.aggregation import aggregate
from fedperfit.cloud.rounds.checkpoint import Checkpoint, Checkpoints
from fedperfit.cloud.rounds.robust import TooFew, needed, robust
from fedperfit.cloud.rounds.round_report import RoundReport
from fedperfit.cloud.rounds.settings import FederationSettings
from fedperfit.protocol.messages.keys import (
    CONTRIBUTE_TYPE,
    EVALUATE_TYPE,
    PERSONALIZE_TYPE,
    ROUND_KEY,
    SETTINGS_RECORD,
    SHIFT_KEY,
    SHIFT_RECORD,
    SHIFT_STYPE,
)
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.messages.settings import EvaluationSettings, PersonalSettings, TrainingSettings
from fedperfit.protocol.shift.packing import ShiftHeader, pack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import task_by_name

Config = dict[str, bool | int | float | str]
"""Values of a Flower ConfigRecord."""


class Federation:
    """Trains a collective shift over clients, then has them personalize and evaluate."""

    def __init__(
        self,
        *,
        exchange: Exchange,
        checkpoints: Checkpoints,
        ledger: Ledger,
        header: ShiftHeader,
        settings: FederationSettings,
        training: TrainingSettings,
    ) -> None:
        """Set up a federation.

        Args:
            exchange: Exchange with the connected clients.
            checkpoints: Folder of its checkpoints.
            ledger: Ledger that `exchange` writes.
            header: Shape, task and base model of the shift; round and dtype are set here.
            settings: Settings of the rounds.
            training: Settings of the clients' training.

        Raises:
            InputError: If the task is unknown.
        """
        self.exchange, self.checkpoints, self.ledger = exchange, checkpoints, ledger
        self.settings, self.training = settings, training
        self.task = task_by_name(header.task)
        self.header = replace(header, round=0, dtype=settings.dtype)
        self.history: list[RoundReport] = []
        """Reports of all finished rounds, those before a resume included."""

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides the result, beside the clients and the start."""
        described = [vars(self.settings), vars(self.training), asdict(self.header)]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def train(
        self,
        contributors: Sequence[str],
        on_round: Callable[[RoundReport], None],
        start: Callable[[], Shift] | None = None,
    ) -> Shift:
        """Run all rounds, continuing after the last checkpoint if there is one.

        Args:
            contributors: Names of the clients.
            on_round: Called with each round's report, after its checkpoint is written.
            start: Makes the shift that the first round broadcasts; by default the identity with a random R.

        Returns:
            The collective shift after the last round.

        Raises:
            InputError: If there are no clients, if no round could have enough updates for the aggregation,
                or if the checkpoints belong to a run with other settings.
        """
        clients = sorted(set(contributors))
        if not clients:
            raise InputError("no client can contribute")
        self._check_enough(len(clients))
        state = self._resume() or self._checkpoint(0, start() if start is not None else self._identity())
        self.history = list(state.history)
        shift = state.shift
        for number in range(state.round + 1, self.settings.rounds + 1):
            shift, report = self._round(number, shift, clients)
            self.history.append(report)
            self._checkpoint(number, shift)
            on_round(report)
        return shift

    def personalize(
        self,
        clients: Sequence[str],
        payload: bytes,
        personal: PersonalSettings,
        training: TrainingSettings,
        phase: str,
    ) -> dict[str, Counts]:
        """Have each client fit its personal shift, which never leaves it.

        Args:
            clients: Names of the clients.
            payload: The packed collective shift, or the release file that holds it if edges require one.
            personal: Settings of the personal shift.
            training: Settings of its training.
            phase: Phase, for the ledger and the log.

        Returns:
            Admitted counts by client name, sorted; refused replies are logged.
        """
        config = training.to_config() | personal.to_config()
        return self._counts(clients, payload, config, PERSONALIZE_TYPE, TRAINING_METRICS, phase)

    def evaluate(
        self, clients: Sequence[str], payload: bytes, evaluation: EvaluationSettings, phase: str
    ) -> dict[str, Counts]:
        """Have each client answer its questions.

        Args:
            clients: Names of the clients.
            payload: The packed collective shift, or the release file that holds it if edges require one.
            evaluation: Settings of the answers.
            phase: Phase, for the ledger and the log.

        Returns:
            Admitted metric sums by client name, sorted; refused replies are logged.
        """
        rules = evaluation_metrics(self.task)
        return self._counts(clients, payload, evaluation.to_config(), EVALUATE_TYPE, rules, phase)

    def _check_enough(self, clients: int) -> None:
        rule, share = self.settings.aggregation, self.settings.assumed_malicious
        asked = self.settings.asked(clients)
        if rule != "mean" and all(n < needed(rule, n, share) for n in range(1, asked + 1)):
            raise InputError(
                f"aggregation={rule}: a round asks {asked} clients, too few with assumed_malicious={share:g}"
            )

    def _identity(self) -> Shift:
        return Shift.identity(self.header.shape, seed=self.settings.seed)

    def _resume(self) -> Checkpoint | None:
        checkpoint = self.checkpoints.latest(self.digest)
        if checkpoint is not None:
            self.checkpoints.rewind(self.ledger)
            logger.info("resuming after round %d", checkpoint.round)
        return checkpoint

    def _checkpoint(self, number: int, shift: Shift) -> Checkpoint:
        checkpoint = Checkpoint(
            number,
            shift,
            replace(self.header, round=number, dtype="float32"),
            self.digest,
            len(self.ledger.entries()),
            list(self.history),
        )
        self.checkpoints.write(checkpoint)
        return checkpoint

    def _round(self, number: int, shift: Shift, clients: list[str]) -> tuple[Shift, RoundReport]:
        """Run one round, counted from 1, on a shift that has seen `number` - 1 rounds."""
        settings = self.settings
        draw = random.Random(f"{settings.seed}/{number}")
        asked = sorted(draw.sample(clients, settings.asked(len(clients))))
        header = replace(self.header, round=number - 1)
        gate = AdmissionGate(
            header=header,
            round=number,
            max_norm=settings.max_norm,
            max_items=settings.max_items,
        )
        config = self.training.to_config() | {ROUND_KEY: number}
        contents = _contents(asked, pack(shift, header), config)
        updates: dict[str, Update] = {}
        dropped: dict[str, str] = {}
        replies = self.exchange.ask(
            contents,
            CONTRIBUTE_TYPE,
            phase="train",
            round=number,
            deadline=settings.deadline_seconds,
        )
        with closing(replies):
            for client, reply in replies:
                try:
                    updates[client] = gate.admit(client, reply)
                except Rejected as reason:
                    dropped[client] = str(reason)
                if settings.enough(len(clients)) <= len(updates) < len(asked):
                    break
            else:
                for client in set(asked) - set(updates) - set(dropped):
                    dropped[client] = f"no reply within {settings.deadline_seconds:g} s"
        for client, why in sorted(dropped.items()):
            logger.warning("round %d: dropped %s: %s", number, client, why)
        admitted = [updates[client] for client in sorted(updates)]
        skipped = False
        try:
            shift = self._combined(admitted, shift)
        except TooFew as reason:
            skipped = True
            logger.warning("round %d: skipped, %d updates: %s", number, len(admitted), reason)
        return shift, RoundReport(
            round=number,
            asked=asked,
            admitted=sorted(updates),
            dropped=dict(sorted(dropped.items())),
            skipped=skipped,
            items=sum(update.items for update in admitted),
            loss=_mean_loss(admitted),
            bytes_down=sum(e.message for e in self.exchange.last if e.direction == "down"),
            bytes_up=sum(e.message for e in self.exchange.last if e.direction == "up"),
        )

    def _combined(self, admitted: Sequence[Update], broadcast: Shift) -> Shift:
        settings = self.settings
        if len(admitted) < settings.min_updates:
            raise TooFew(f"at least {settings.min_updates} are needed")
        if settings.aggregation == "mean":
            return aggregate([(update.shift, float(update.items)) for update in admitted])
        shifts = [update.shift for update in admitted]
        return robust(settings.aggregation, shifts, settings.assumed_malicious, broadcast)

    def _counts(
        self,
        clients: Sequence[str],
        payload: bytes,
        config: Config,
        message_type: str,
        rules: Mapping[str, MetricRule],
        phase: str,
    ) -> dict[str, Counts]:
        return gather(
            self.exchange,
            _contents(sorted(set(clients)), payload, config | {ROUND_KEY: 0}),
            message_type,
            lambda client, reply: admit_counts(client, reply, rules),
            phase=phase,
            round=0,
            deadline=self.settings.deadline_seconds,
        )


def _contents(clients: Sequence[str], payload: bytes, config: Config) -> dict[str, RecordDict]:
    """Make one request for every client: the shift and the settings."""
    array = Array(dtype="uint8", shape=(len(payload),), stype=SHIFT_STYPE, data=payload)
    return {
        client: RecordDict(
            {
                SHIFT_RECORD: ArrayRecord({SHIFT_KEY: array}),
                SETTINGS_RECORD: ConfigRecord({**config}),
            }
        )
        for client in clients
    }


def _mean_loss(updates: Sequence[Update]) -> float | None:
    """Return the loss per item, clients weighted as in the aggregation; None if none shares it."""
    total, weight = 0.0, 0
    for update in updates:
        loss = update.metrics.get("loss")
        if isinstance(loss, float):
            total += update.items * loss / update.trained
            weight += update.items
    return total / weight if weight else None
