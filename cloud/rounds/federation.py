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
from typing import Any

from flwr.app import Message

from fedperfit.cloud.clients.admission import Counts, admit_counts
from fedperfit.cloud.clients.coordinate_gate import BasisMissing
from fedperfit.cloud.clients.exchange import Exchange, logger
from fedperfit.cloud.clients.gathering import gather
from fedperfit.cloud.clients.metric_rules import TRAINING_METRICS, MetricRule, evaluation_metrics
from fedperfit.cloud.clients.replies import Rejected
from fedperfit.cloud.privacy.rounds import PrivateRounds
from fedperfit.cloud.privacy.settings import PrivacySettings
from fedperfit.cloud.rounds.asynchronous.buffered import BufferedRounds
from fedperfit.cloud.rounds.checkpoint import Checkpoint, Checkpoints
from fedperfit.cloud.rounds.collection import Collection
from fedperfit.cloud.rounds.coordinate_form import CoordinateForm
from fedperfit.cloud.rounds.forms import Config, ShiftForm, UpdateForm, mean_loss
from fedperfit.cloud.rounds.robust import TooFew, needed
from fedperfit.cloud.rounds.round_report import RoundReport
from fedperfit.cloud.rounds.scatter import UpdateScatter
from fedperfit.cloud.rounds.sealed_form import SealedForm
from fedperfit.cloud.rounds.settings import FederationSettings
from fedperfit.cloud.rounds.sums import SecureSums
from fedperfit.protocol.messages.keys import (
    CONTRIBUTE_TYPE,
    EVALUATE_TYPE,
    PERSONALIZE_TYPE,
    ROUND_KEY,
)
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.messages.settings import EvaluationSettings, PersonalSettings, TrainingSettings
from fedperfit.protocol.settings.fields import WHOLE_SHIFTS
from fedperfit.protocol.shift.basis import Basis
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import TooFewClients
from fedperfit.protocol.tasks import task_by_name


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
        basis: Basis | None = None,
        holders: Sequence[str] = (),
        privacy: PrivateRounds | None = None,
        scatter: UpdateScatter | None = None,
        sums: SecureSums | None = None,
    ) -> None:
        """Set up a federation.

        Args:
            exchange: Exchange with the connected clients.
            checkpoints: Folder of its checkpoints.
            ledger: Ledger that `exchange` writes.
            header: Shape, task and base model of the shift; round and dtype are set here.
            settings: Settings of the rounds.
            training: Settings of the clients' training.
            basis: Basis in which updates are coordinates; None sends whole shifts.
            holders: Clients that were sent the basis in an earlier phase.
            privacy: Promise of differential privacy, for updates in a basis; None for none.
            scatter: Keeps how updates in a basis differ; None for nothing.
            sums: Secure sums of updates in a basis; None lets the cloud see each update.

        Raises:
            InputError: If the task is unknown.
        """
        self.exchange, self.checkpoints, self.ledger = exchange, checkpoints, ledger
        self.settings, self.training = settings, training
        self.task = task_by_name(header.task)
        dtype = settings.dtype if settings.dtype in WHOLE_SHIFTS else "float32"
        self.header = replace(header, round=0, dtype=dtype)
        self.basis = basis
        self.form: UpdateForm[Any, Any] = ShiftForm(self.header, settings)
        if basis is not None:
            self.form = CoordinateForm(basis, settings, privacy, scatter)
        if basis is not None and sums is not None:
            self.form = SealedForm(basis, settings, sums, privacy)
        self.privacy, self.sums = privacy, sums
        self._holders = set(holders)
        self.history: list[RoundReport] = []
        """Reports of all finished rounds, those before a resume included."""

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides the result, beside the clients and the start."""
        described: list[Any] = [self.settings.deciding, vars(self.training), asdict(self.header)]
        if self.basis is not None:
            described.append(self.basis.digest)
        if self.privacy is not None:
            described.append(PrivacySettings.own(self.privacy.settings.to_flat()))
        if self.sums is not None:
            described.append(self.sums.described)
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
            TooFewClients: If there are no clients, or no round could have enough updates for the aggregation.
            InputError: If the checkpoints belong to a run with other settings.
        """
        clients = sorted(set(contributors))
        if not clients:
            raise TooFewClients("no client can contribute")
        self._check_enough(len(clients))
        if self.sums is not None and self.basis is not None:
            self.sums.begin(self.basis, self.settings.dtype, len(clients))
        checkpoint = self._resume()
        if checkpoint is None:
            state = self.form.start(start() if start is not None else None, self.settings.seed)
            checkpoint = self._checkpoint(0, state)
        state = self.form.restored(checkpoint)
        self.history = list(checkpoint.history)
        self.exchange.clock.start(max((report.seconds or 0.0 for report in self.history), default=0.0))
        self._holders |= {client for report in self.history for client in report.admitted}
        if self.privacy is not None:
            wanted, rounds = self.settings.wanted(len(clients)), self.settings.rounds
            self.privacy.begin(self.settings.dtype, len(clients), wanted, rounds, checkpoint.round)
        run: Callable[[int, Any, list[str]], tuple[Any, RoundReport]] = self._round
        if self.settings.buffer_size:
            run = BufferedRounds(self.exchange, self.form, self.settings, self.training, self._holders).run
        for number in range(checkpoint.round + 1, self.settings.rounds + 1):
            state, report = run(number, state, clients)
            self.history.append(replace(report, seconds=self.exchange.clock.simulated))
            self._checkpoint(number, state)
            if self.sums is not None:
                self.sums.forget()
            on_round(self.history[-1])
        if self.privacy is not None:
            self.privacy.end(self.settings.rounds)
        return self.form.shift(state)

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
            raise TooFewClients(
                f"aggregation={rule}: a round asks {asked} clients, too few with assumed_malicious={share:g}"
            )

    def _resume(self) -> Checkpoint | None:
        ended = self.checkpoints.latest()
        if self.privacy is None and ended is not None and ended.without_updates(self.settings.rounds):
            logger.info("no round had an update: beginning again")
            self.checkpoints.clear()
            if self.sums is not None:
                self.sums.renew()
            self.checkpoints.rewind(self.ledger)
        checkpoint = self.checkpoints.latest(self.digest)
        if checkpoint is not None:
            self.checkpoints.rewind(self.ledger)
            logger.info("resuming after round %d", checkpoint.round)
        return checkpoint

    def _checkpoint(self, number: int, state: Any) -> Checkpoint:
        checkpoint = Checkpoint(
            number,
            self.form.shift(state),
            replace(self.header, round=number, dtype="float32"),
            self.digest,
            self.ledger.count(),
            list(self.history),
            self.form.numbers(state),
        )
        self.checkpoints.write(checkpoint)
        return checkpoint

    def _round(self, number: int, state: Any, clients: list[str]) -> tuple[Any, RoundReport]:
        """Run one round, counted from 1, on a state that has seen `number` - 1 rounds."""
        settings = self.settings
        if self.privacy is not None:
            self.privacy.charge(number)
        collection = self._collection(number, state, clients)
        self._holders |= set(collection.updates)
        for client, why in sorted(collection.dropped.items()):
            logger.warning("round %d: dropped %s: %s", number, client, why)
        admitted = collection.admitted
        skipped = not admitted
        try:
            if self.privacy is None and len(admitted) < settings.min_updates:
                raise TooFew(f"at least {settings.min_updates} are needed")
            state = self.form.combine(admitted, state, number)
        except TooFew as reason:
            skipped = True
            logger.warning("round %d: skipped, %d updates: %s", number, len(admitted), reason)
        sent = collection.sent + (self.sums.sent if self.sums is not None else [])
        return state, RoundReport(
            round=number,
            asked=collection.asked,
            admitted=sorted(collection.updates),
            dropped=dict(sorted(collection.dropped.items())),
            skipped=skipped,
            items=0 if self.privacy or self.sums else sum(update.items for update in admitted),
            loss=None if self.privacy else mean_loss(admitted),
            bytes_down=sum(e.message for e in sent if e.direction == "down"),
            bytes_up=sum(e.message for e in sent if e.direction == "up"),
        )

    def _collection(self, number: int, state: Any, clients: list[str]) -> Collection[Any]:
        """Ask clients for updates, unless a killed run kept what they sealed for this round."""
        if isinstance(self.form, SealedForm):
            self.form.announce(state, number, self.training)
        kept = self.sums.kept(number) if self.sums is not None else None
        if kept is not None:
            self.ledger.add(kept.sent)
            return kept
        collection: Collection[Any] = Collection(self._asked(number, clients))
        gate, keep = self.form.gate(state, number), self.form.keeper()

        def admit(client: str, reply: Message) -> Any:
            return keep(gate.admit(client, reply))

        lacking = self._collect(number, state, collection.asked, admit, collection, len(clients))
        if lacking:
            self._holders -= set(lacking)
            again = self._collect(number, state, lacking, admit, collection, len(clients))
            collection.dropped |= dict.fromkeys(again, "it was sent the basis twice and still lacks it")
        if self.sums is not None:
            self.sums.keep(number, collection)
        return collection

    def _asked(self, number: int, clients: list[str]) -> list[str]:
        """Draw the clients that a round asks, sorted."""
        drawn = self.privacy.asked(number, clients) if self.privacy is not None else None
        if drawn is not None:
            return drawn
        draw = random.Random(f"{self.settings.seed}/{number}")
        return sorted(draw.sample(clients, self.settings.asked(len(clients))))

    def _collect(
        self,
        number: int,
        state: Any,
        asked: list[str],
        admit: Callable[[str, Message], Any],
        collection: Collection[Any],
        clients: int,
    ) -> list[str]:
        """Ask until enough of the federation's `clients` sent updates; return those that lack the basis."""
        updates, dropped = collection.updates, collection.dropped
        settings = self.settings
        config = self.training.to_config() | {ROUND_KEY: number}
        lacking: list[str] = []
        replies = self.exchange.ask(
            self.form.requests(asked, state, number, config, self._holders),
            CONTRIBUTE_TYPE,
            phase="train",
            round=number,
            deadline=settings.deadline_seconds,
        )
        with closing(replies):
            for client, reply in replies:
                try:
                    updates[client] = admit(client, reply)
                except Rejected as reason:
                    dropped[client] = str(reason)
                except BasisMissing:
                    lacking.append(client)
                if settings.enough(clients) <= len(updates) < settings.asked(clients):
                    break
            else:
                for client in set(asked) - set(updates) - set(dropped) - set(lacking):
                    dropped[client] = f"no reply within {settings.deadline_seconds:g} s"
        collection.sent = collection.sent + self.exchange.last
        return sorted(lacking)

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
            self.form.carrying(sorted(set(clients)), payload, config | {ROUND_KEY: 0}),
            message_type,
            lambda client, reply: admit_counts(client, reply, rules),
            phase=phase,
            round=0,
            deadline=self.settings.deadline_seconds,
        )
