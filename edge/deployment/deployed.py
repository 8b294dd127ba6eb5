"""A deployed edge: one person's agent with its releases, its record of what left, and locks on the model.

All calls may come from many threads. One training runs at a time and lets answers go first between its steps.
Calls take `alive`, which tells whether the caller still waits; they raise `Busy` where too many wait,
`Cancelled` once the caller is gone, and InputError for what cannot be done.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event
from typing import Any

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.basis_file import BasisLacking, CoordinateRequest
from fedperfit.edge.agent.consent import read_consent, shares_metrics
from fedperfit.edge.agent.coordinates import LACKING, contribute_alone
from fedperfit.edge.agent.outcome import Contribution, Outcome
from fedperfit.edge.agent.sealed_history import seal_history
from fedperfit.edge.agent.statistics import Statistics, report_layer_gradient
from fedperfit.edge.asking.asking import Asked, Asking
from fedperfit.edge.asking.stages import Stages, State
from fedperfit.edge.audit.record import Record
from fedperfit.edge.chameleon.contribution import Memory, Probing, moments, probe
from fedperfit.edge.chameleon.encoder import sentence_encoder
from fedperfit.edge.consent.guard import Guard
from fedperfit.edge.deployment.fair_lock import Cancelled, FairLock
from fedperfit.edge.deployment.home import AgentSettings, Home
from fedperfit.edge.engine.examples import latest_turns
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.training import Watch
from fedperfit.edge.learning.renewal import Lesson, learn, renew
from fedperfit.edge.learning.unlearning import unlearn
from fedperfit.edge.releases.store import ReleaseStore
from fedperfit.edge.releases.trusted_keys import trusted_keys
from fedperfit.edge.sums.own_sums import OwnSums
from fedperfit.edge.vault.keys import KeyKeeper
from fedperfit.edge.vault.stored_shift import StoredShift
from fedperfit.edge.vault.vault import Forgotten
from fedperfit.edge.writing.scores import TokenScore
from fedperfit.edge.writing.streaming import Alive, Finished
from fedperfit.protocol.messages.settings import (
    FULL_SLOT,
    EvaluationSettings,
    LayerGradientSettings,
    PairSettings,
    PersonalSettings,
    Stage,
    TrainingSettings,
)
from fedperfit.protocol.model.base_model import load
from fedperfit.protocol.shift.coordinate_packing import unpack_coordinates
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Pair, PromptForm
from fedperfit.protocol.trust.policy import RequestKind, read_policy
from fedperfit.protocol.trust.release import Release

_WAITING_TRAININGS = 4
_WAITING_ANSWERS = 16
"""Calls that may wait for a training, and for the model."""
_SALT_BYTES = 32
"""Random bytes from the operating system that the starts of personal shifts depend on."""


class Deployed:
    """One person's agent that stays up; usable inside the block of `open`."""

    def __init__(
        self, home: Home, settings: AgentSettings, agent: Agent, clock: Callable[[], datetime]
    ) -> None:
        """Take over an agent whose vault is held; see `open`."""
        self.home, self.settings, self.agent = home, settings, agent
        self.record = Record(home.audit, home.sent)
        keys = trusted_keys(home.releases, settings.release_key)
        policy = read_policy(home.policy, *keys) if home.policy.exists() else None
        self.guard = Guard(home.guard, policy, clock=clock)
        self.releases = ReleaseStore(
            home.releases,
            pinned=settings.release_key,
            fingerprint=agent.base.card.fingerprint,
            task=agent.history.task.id,
            clock=clock,
        )
        self.sums = OwnSums(home.folder, agent.history.name, self.releases, self.guard)
        self.stopping = Event()
        self._trainings, self._model = FairLock(_WAITING_TRAININGS), FairLock(_WAITING_ANSWERS)
        self._busy = ""
        self._forgotten = 0
        self._not_renewed = ""
        self._last: tuple[tuple[object, ...], StoredShift, Outcome] | None = None
        """What the personal shift was renewed on last, what came of it, and what is said of it."""
        self.stages = Stages(agent, self.releases, policy.prompt_form if policy else PromptForm.LAMP)
        self._asking = Asking(agent, self.stages)
        self._memory = Memory(settle=self.guard.selection)

    @classmethod
    @contextmanager
    def open(
        cls,
        home: Home,
        settings: AgentSettings,
        keeper: KeyKeeper,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> Iterator["Deployed"]:
        """Load the base model and hold the vault inside the block.

        Args:
            home: the person's folder.
            settings: base model, device, memory and release key.
            keeper: keeps the vault's key.
            clock: tells the time in UTC.

        Raises:
            InputError: something is missing, or another process uses the vault.
        """
        base = load(settings.base_model, device=settings.device, dtype=settings.dtype)
        base = replace(base, card=settings.known(base.card))
        if settings.encoder:
            sentence_encoder(settings.encoder, str(base.device))
        budget = None if settings.cache_gib < 0 else int(settings.cache_gib * 2**30)
        items, salt = ItemCache(base, budget), secrets.token_hex(_SALT_BYTES)
        agent = Agent(home.folder, base, items, keeper, settings.encoder, salt)
        with agent.vault.held():
            if seal_history(home.folder, agent.vault, latest_turns(base)):
                agent.read()
            edge = cls(home, settings, agent, clock)
            with closing(edge.record):
                yield edge

    # Calls of the cloud.

    def contribute(self, packed: bytes, training: TrainingSettings, alive: Alive) -> Contribution:
        """Train the packed collective shift for one round of stage 1."""
        with self._training("contribute", alive) as watch:
            pairs = self._pairs(training.prompt_form)
            self.agent.shared_pairs = self.guard.contribution(packed, training, pairs)
            return self.agent.contribute(packed, training, watch)

    def contribute_coordinates(
        self, request: CoordinateRequest, training: TrainingSettings, alive: Alive
    ) -> Contribution:
        """Train the collective shift's coordinates for one round; without the basis, only say so."""
        with self._training("contribute", alive) as watch:
            self.guard.basis(request.wanted, request.sums)
            try:
                basis = self.agent.basis.find(request)
            except BasisLacking:
                return LACKING
            self.agent.sums = self.sums.party() if request.sums is not None else None
            coordinates, _ = unpack_coordinates(request.packed, basis, request.wanted.codec)
            pairs = self._pairs(training.prompt_form)
            self.agent.shared_pairs = self.guard.coordinates(coordinates, training, pairs)
            return contribute_alone(self.agent, request, training, watch)

    def personalize(
        self, data: bytes, personal: PersonalSettings, training: TrainingSettings, alive: Alive
    ) -> Outcome:
        """Verify a release, keep it, and renew the personal shift on it.

        Args:
            data: bytes of the release.
            personal: rank and mode of the personal shift; its slot is the one in use here.
            training: epochs, batch size and rates of the fit.
            alive: whether the caller still waits.
        """
        personal = personal.replace(slot=FULL_SLOT)
        with self._training("personalize", alive) as watch:
            pairs = self._pairs(training.prompt_form)
            self.guard.personalization(personal, training, pairs)
            release = self._accepted("personalize", data)
            outcome = self._renewed(release, personal, training, pairs, watch)
            return self._told("personalize", outcome, pairs, training.max_items)

    def moments(self, pairs: PairSettings, alive: Alive) -> Statistics:
        """Make preference pairs anew and return their moments."""
        with self._training("moments", alive):
            own = self._pairs(pairs.prompt_form)
            self.agent.shared_pairs = self.guard.moments(pairs, self._in_force(), own)
            told = moments(self.agent, pairs, self._memory)
            self.guard.enough("moments", told.items)
            return told

    def probe(self, pairs: PairSettings, probing: Probing, alive: Alive) -> Statistics:
        """Sum the probes' loss and gradient over the preference pairs."""
        with self._training("probe", alive):
            self.agent.shared_pairs = self.guard.probe(pairs, self._pairs(pairs.prompt_form))
            told = probe(self.agent, pairs, probing, self._memory)
            self.guard.enough("probe", told.items)
            return told

    def layer_gradient(self, settings: LayerGradientSettings, alive: Alive) -> Statistics:
        """Gradient of the mean loss on the latest pairs with respect to each layer's output."""
        with self._training("layer gradient", alive):
            pairs = self._pairs(settings.prompt_form)
            self.agent.shared_pairs = self.guard.layer_gradient(settings, self._in_force(), pairs)
            return report_layer_gradient(self.agent, settings)

    def evaluate(self, data: bytes, settings: EvaluationSettings, alive: Alive) -> Outcome:
        """Answer the held-out questions at one stage of a release, given as bytes."""
        self.guard.evaluation(settings)
        release = self._accepted("evaluate", data)
        with self._model.turn(self._wanted(alive)):
            outcome = self.agent.evaluate(release.to_bytes(), settings.replace(slot=FULL_SLOT))
            told = self._told("evaluate", outcome, self.agent.history.asked(settings.prompt_form))
            return self._of_many(told) if settings.stage is Stage.PERSONAL else told

    # Calls of what fetches releases.

    def fetched(self, data: bytes, alive: Alive) -> Release:
        """Keep a fetched release that the pointer names and the guard lets pass, between two answers."""
        with self._model.turn(self._wanted(alive)):
            return self.releases.fetched(data, lambda release: self.guard.release(release.shift))

    def renew(self, alive: Alive) -> bool:
        """Renew a stale personal shift as it was fitted last; it counts as a request to personalize.

        Returns:
            Whether it was stale once its turn had come; where it was not, nothing is done.

        Raises:
            InputError: the owner did not agree to it; `state` says so from now on.
        """
        try:
            with self._training("personalize", alive) as watch:
                if not self.stages.stale():
                    return False
                release, personal = self.stages.current(), self.stages.personal()
                stored, _ = self.stages.kept()
                training = TrainingSettings.from_config(stored.fit_record.training)
                read_consent(self.home.folder).check("personalize")
                pairs = self._pairs(training.prompt_form)
                self.guard.personalization(personal, training, pairs)
                self._renewed(release, personal, training, pairs, watch)
                return True
        except InputError as error:
            self._not_renewed = f"; it is not renewed: {error}"
            raise

    # Calls of the owner.

    def learn(self, items: Sequence[Any], alive: Alive) -> Lesson:
        """Keep items of the person's task in the vault and take a few training steps on them.

        Args:
            items: as `renewal.learn` takes them.
            alive: whether the caller still waits.
        """
        with self._training("learn", alive) as watch:
            release = self.releases.current()
            opened = self.stages.open(release) if release is not None else None
            return learn(self.agent, items, opened, self.stages.personal(), watch)

    def unlearn(self, numbers: Sequence[int], alive: Alive) -> tuple[int, bool]:
        """Remove learned items and fit the personal shift anew.

        Args:
            numbers: places of the items among those learned, from 1.
            alive: whether the caller still waits.

        Returns:
            Number of learned items left, and whether there is a personal shift again.
        """
        with self._training("unlearn", alive) as watch:
            release = self.releases.current()
            opened, version = (None, 0) if release is None else (self.stages.open(release), release.version)
            self.agent.items.clear()
            self._memory.forget(self.agent.history.name)  # else probes would go on to sum over the items
            fitted = unlearn(self.agent, numbers, opened, version, watch)
            return len(self.agent.vault.learned()), fitted

    def generate(
        self,
        asked: Asked,
        on_part: Callable[[str | Sequence[TokenScore], str], None],
        alive: Alive,
    ) -> tuple[Finished, str]:
        """Continue a prompt or a conversation.

        Args:
            asked: text to be continued, or a conversation, and how.
            on_part: called with each piece of text or scores of its tokens, and the stage.
            alive: whether the caller still waits.

        Returns:
            How the text ended, and the stage that answered.
        """
        with self._model.turn(alive := self._wanted(alive)):
            stage = self.stages.chosen(asked.stage)
            return self._asking.reply(asked, stage, lambda part: on_part(part, stage), alive), stage

    def answer(self, question: str, stage: str, alive: Alive) -> tuple[str, str]:
        """Answer a question of the task at a stage; returns the answer, and the stage that answered."""
        with self._model.turn(alive := self._wanted(alive)):
            answering = self.stages.chosen(stage)
            if answering is Stage.BASE and not stage:
                raise InputError("there is no release yet: generate answers from the base model alone")
            return self._asking.answer(question, answering, alive), answering

    def forget(self) -> Forgotten:
        """Destroy the vault's key and everything it sealed.

        Waits for no training: one under way ends without storing anything.
        """
        with self._model.turn(self._wanted(lambda: True)):
            self._forgotten += 1
            forgotten = self.agent.vault.forget()
            self.agent.items.clear()
            self._memory.forget(self.agent.history.name)
            self.agent.read()
            return forgotten

    def state(self) -> State:
        """Describe the release, the personal shift and the work under way; never waits for a lock."""
        release, personal, stage, problem = None, None, Stage.BASE, ""
        try:
            stage = self.stages.chosen("")
            release = self.releases.current()
            if FULL_SLOT in self.agent.vault.slots():
                personal, _ = self.agent.vault.open(FULL_SLOT)
            self.stages.chosen(Stage.PERSONAL)
            self._not_renewed = ""
            if release is not None and self.releases.expired(release):
                problem = (
                    f"release {release.version} expired at {release.expires}: the cloud has not renewed it"
                )
        except InputError as error:
            problem = f"{error}{self._not_renewed if personal is not None else ''}"
        return State(release, personal, stage, self._busy, problem)

    def _renewed(
        self,
        release: Release,
        personal: PersonalSettings,
        training: TrainingSettings,
        pairs: Sequence[Pair],
        watch: Watch,
    ) -> Outcome:
        """Renew the personal shift, unless it is there and nothing has changed: a fit would end the same."""
        items = hashlib.sha256(repr(pairs).encode()).digest()
        asked = (release.digest, personal, training, items, self.agent.personal_epsilon)
        if self._last is not None and FULL_SLOT in self.agent.vault.slots():
            before, stored, outcome = self._last
            if before == asked and self.stages.kept()[0] == stored:
                return outcome
        opened = self.stages.open(release)
        form = self.agent.form(opened, training, self.agent.personal_epsilon)
        self.guard.fits(form.fits, training, pairs)
        outcome, _ = renew(self.agent, opened, release.version, personal, training, watch)
        self._last = (asked, self.stages.kept()[0], outcome)
        return outcome

    @contextmanager
    def _training(self, name: str, alive: Alive) -> Iterator[Watch]:
        alive = self._wanted(alive)
        with self._trainings.turn(alive), self._model.turn(alive):
            forgotten = self._forgotten

            def watch(step: int, steps: int) -> None:
                self._busy = f"{name}: step {step + 1} of {steps}"
                self._model.give_way()
                if not alive() or self._forgotten != forgotten:
                    raise Cancelled

            self._busy = name
            try:
                yield watch
            finally:
                self._busy = ""

    def _pairs(self, form: PromptForm) -> list[Pair]:
        """All training pairs of the history as it is now, oldest first."""
        return self.agent.read().pairs(form, 0)

    def _told(self, kind: RequestKind, outcome: Outcome, pairs: list[Pair], most: int = 0) -> Outcome:
        """Leave the sums out of an outcome where they are not shared, or would tell of few items."""
        if shares_metrics(self.home.folder) and self.guard.tells(kind, pairs, most):
            return outcome
        return replace(outcome, metrics={})

    def _of_many(self, outcome: Outcome) -> Outcome:
        """Leave out scores of a personal shift, which tell its items, as the loss of its fit would be."""
        training = TrainingSettings.from_config(self.stages.kept()[0].fit_record.training)
        pairs = self._pairs(training.prompt_form)
        if self.stages.kept()[0].fit_record.items != len(pairs[-training.max_items :]):
            return replace(outcome, metrics={})  # of other items than there are now
        return self._told("personalize", outcome, pairs, training.max_items)

    def _accepted(self, kind: RequestKind, data: bytes) -> Release:
        """Keep a release that the guard lets pass; one that it refuses leaves the last one in force."""
        return self.releases.accept(data, lambda release: self.guard.shift(kind, release.shift))

    def _in_force(self) -> str:
        release = self.releases.current()
        return release.digest if release is not None else ""

    def _wanted(self, alive: Alive) -> Alive:
        return lambda: not self.stopping.is_set() and alive()
