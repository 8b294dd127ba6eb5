"""The agent: owns one person's history, base model and personal shifts.

Its three actions take a packed collective shift and settings, and give back a packed update,
counts and metric sums; nothing it returns can hold a personal tensor, an item or a text. Agents that
share a machine and a base model act side by side (`contribute`, `personalize`, `evaluate`): the same
results, less time.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from fedperfit.edge.agent.history import History, read_history
from fedperfit.edge.engine.answering import MAX_NEW_TOKENS, answer
from fedperfit.edge.engine.batching import Question
from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.prefix import common_prefix
from fedperfit.edge.engine.scoring import Sums, score
from fedperfit.edge.engine.slab import Slab, Stack
from fedperfit.edge.engine.training import Fit, FitJob, Watch, cohorts, fit
from fedperfit.edge.vault.keys import KeyKeeper
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.edge.vault.vault import FitRecord, ShiftKey, Vault
from fedperfit.protocol.messages.settings import EvaluationSettings, PersonalSettings, Stage, TrainingSettings
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.shift.directions import Directions, editing
from fedperfit.protocol.shift.packing import MAGIC, ShiftHeader, pack, unpack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.seeds import seed_from
from fedperfit.protocol.tasks import Pair, PromptForm, Task
from fedperfit.protocol.trust.release import parse_release

VAULT = "vault"
"""Folder of the vault in a person's own."""
_EVALUATED_TOGETHER = 64
"""Agents whose questions are answered side by side."""


@dataclass(frozen=True)
class Outcome:
    """What an action may tell the cloud."""

    items: int
    """Training pairs used, or questions answered."""
    metrics: Sums
    """Sums over those items; sent only when the owner shares metrics."""


@dataclass(frozen=True)
class Contribution(Outcome):
    """An outcome of stage 1."""

    update: bytes
    """The packed collective shift as this client left it."""


@dataclass(frozen=True)
class OpenedRelease:
    """A collective shift as the cloud sent it, checked."""

    shift: Shift
    header: ShiftHeader
    digest: str
    """SHA-256 of the packed bytes."""
    directions: Directions | None = None
    """The group's, where a release carries them."""

    @classmethod
    def of(cls, packed: bytes, base: BaseModel) -> "OpenedRelease":
        """Unpack a shift, or the release that holds it, whose signature is for the caller to check.

        Raises InputError when it is broken, not finite, or for another base model.
        """
        directions = None
        if not packed.startswith(MAGIC):
            release = parse_release(packed)
            packed, directions = release.packed, release.directions
        shift, header = unpack(packed)
        if header.fingerprint != base.card.fingerprint:
            raise InputError("the collective shift is for another base model")
        if not all(torch.isfinite(tensor).all() for tensor in shift.parameters()):
            raise InputError("the collective shift is not finite")
        return cls(shift, header, hashlib.sha256(packed).hexdigest(), directions)

    def copy(self) -> Shift:
        """A shift to train."""
        return self.shift.copy()

    def frozen(self, base: BaseModel) -> Shift:
        """The shift as what personal shifts are fitted and answer on."""
        return self.shift.requires_grad_(False).to(base.device)

    def edit(self, stage: Stage) -> Directions | None:
        """What MLPs are edited by at a stage; raises InputError where it has no directions to do it by."""
        if stage is not Stage.DIRECTIONS:
            return None
        if self.directions is None:
            raise InputError("the release carries no directions")
        return self.directions

    def edited(self, base: BaseModel, stage: Stage) -> AbstractContextManager[None]:
        """Inside the block the model's MLPs are edited as the stage has it."""
        directions = self.edit(stage)
        return nullcontext() if directions is None else editing(base.model, directions.to(base.device))

    def shift_key(self, additive: bool) -> ShiftKey:
        """What a personal shift on top of this one belongs to."""
        return ShiftKey(self.header.task, self.header.fingerprint, self.digest, additive)


class Agent:
    """One person's agent, in the folder `edge.agent.history` describes."""

    def __init__(
        self,
        folder: Path,
        base: BaseModel,
        items: ItemCache | None = None,
        keeper: KeyKeeper | None = None,
        encoder: str = "",
        salt: str = "",
    ) -> None:
        """items: shared by the agents of a process; by default one of its own. keeper: of the vault's key.

        encoder: of sentences (`edge.chameleon.encoder`); by default the base model is. salt: secret part of
        the seed of personal shifts, without which the seed is known to all who know the person's name.
        """
        self.base, self.encoder, self._salt = base, encoder, salt
        self.items = items or ItemCache(base)
        self.vault = Vault(folder / VAULT, keeper)
        self._folder = folder
        self.history = self.read()

    def read(self) -> History:
        """The history as it is now: the owner's own items, then those learned."""
        self.history = read_history(self._folder)
        self.history.items.extend(self.vault.learned())
        return self.history

    def contribute(
        self, packed: bytes, settings: TrainingSettings, watch: Watch | None = None
    ) -> Contribution:
        """Stage 1: train the collective shift on the client's own pairs; the update and its counts."""
        outcome = _only(contribute([self], packed, settings, self.items, watch))
        assert isinstance(outcome, Contribution)
        return outcome

    def personalize(self, packed: bytes, personal: PersonalSettings, training: TrainingSettings) -> Outcome:
        """Stage 2: fit and keep a personal shift on top of a release, from the history alone."""
        return _only(personalize([self], packed, personal, training, self.items))

    def evaluate(self, packed: bytes, settings: EvaluationSettings) -> Outcome:
        """Answer the client's questions at one stage; metric sums against their golds."""
        return _only(evaluate([self], packed, settings, self.items))

    def answer(self, release: OpenedRelease, question: str, settings: EvaluationSettings) -> str:
        """The answer to one question at one stage, for the owner alone."""
        own = self.shift_for(release, settings)
        prompt = self.history.task.query_pair(question, "", settings.prompt_form).prompt
        ((answer,),) = _answers(self.items, release, [(self, own, [prompt])], settings)
        return answer

    def job(self, shift: Shift, release: OpenedRelease, order: str, settings: TrainingSettings) -> FitJob:
        """Training `shift` on the history; raises InputError without one, or for another task's release."""
        self._check_task(release)
        pairs = self.history.pairs(settings.prompt_form, settings.max_items)
        if not pairs:
            raise InputError("there is no history to train on")
        return FitJob(shift, encode(self.base, pairs), order)

    def personal_job(
        self, release: OpenedRelease, personal: PersonalSettings, training: TrainingSettings
    ) -> FitJob:
        """Fitting a new personal shift on top of `release`."""
        order = f"{self._salt}{training.seed}/{self.history.name}"
        shape = replace(release.header.shape, rank=personal.rank)
        return self.job(PersonalShift.start(shape, seed=seed_from(order)), release, order, training)

    def shift_for(self, release: OpenedRelease, settings: EvaluationSettings) -> PersonalShift | None:
        """The personal shift this stage needs; raises InputError when it is missing or does not fit."""
        if settings.stage is not Stage.BASE:
            self._check_task(release)
        release.edit(settings.stage)
        if settings.stage is not Stage.PERSONAL:
            return None
        return self.vault.load(settings.slot, release.shift_key(settings.additive))

    def _check_task(self, release: OpenedRelease) -> None:
        if release.header.task != self.history.task.name:
            raise InputError(f"the collective shift is for task {release.header.task}")


Result = tuple[Agent, Outcome | InputError]
"""An agent and what came of its action."""


def contribute(
    agents: Iterable[Agent],
    packed: bytes,
    settings: TrainingSettings,
    items: ItemCache,
    watch: Watch | None = None,
) -> Iterator[Result]:
    """`Agent.contribute` of each of `agents`, which share the model of `items`; results as they come."""
    release = OpenedRelease.of(packed, items.base)

    def job(agent: Agent) -> FitJob:
        order = f"{settings.seed}/{agent.history.name}/{release.header.round}"
        return agent.job(release.copy(), release, order, settings)

    def conclude(agent: Agent, job: FitJob, done: Fit) -> Outcome:
        return Contribution(done.items, done.metrics, pack(job.shift, release.header))

    yield from _trained(agents, job, conclude, settings, items, watch=watch)


def personalize(
    agents: Iterable[Agent],
    packed: bytes,
    personal: PersonalSettings,
    training: TrainingSettings,
    items: ItemCache,
) -> Iterator[Result]:
    """`Agent.personalize` of each of `agents`, which share the model of `items`; results as they come."""
    release = OpenedRelease.of(packed, items.base)

    def job(agent: Agent) -> FitJob:
        return agent.personal_job(release, personal, training)

    def conclude(agent: Agent, job: FitJob, done: Fit) -> Outcome:
        assert isinstance(job.shift, PersonalShift)
        shift_key = release.shift_key(personal.additive)
        agent.vault.store(
            personal.slot, job.shift, shift_key, FitRecord(done.items, training=training.to_config())
        )
        return Outcome(done.items, done.metrics)

    yield from _trained(
        *(agents, job, conclude, training, items),
        frozen=[release.frozen(items.base)],
        additive=personal.additive,
        decay_rate=True,
    )


def evaluate(
    agents: Iterable[Agent], packed: bytes, settings: EvaluationSettings, items: ItemCache
) -> Iterator[Result]:
    """`Agent.evaluate` of each of `agents`, which share a task and the model of `items`."""
    release = OpenedRelease.of(packed, items.base)
    agents = iter(agents)
    while company := list(islice(agents, _EVALUATED_TOGETHER)):
        asking = []
        for agent in company:
            asked = agent.history.asked(settings.prompt_form)
            try:
                if not asked:
                    raise InputError("there are no held-out questions to evaluate on")
                asking.append((agent, agent.shift_for(release, settings), [pair.prompt for pair in asked]))
            except InputError as error:
                yield agent, error
        for (agent, _, _), answers in zip(asking, _answers(items, release, asking, settings), strict=True):
            golds = [question["gold"] for question in agent.history.questions]
            yield agent, Outcome(len(golds), score(agent.history.task, answers, golds))


def _trained(
    agents: Iterable[Agent],
    make: Callable[[Agent], FitJob],
    conclude: Callable[[Agent, FitJob, Fit], Outcome],
    settings: TrainingSettings,
    items: ItemCache,
    **how: Any,
) -> Iterator[Result]:
    owners: list[Agent] = []
    refused: list[Result] = []

    def jobs() -> Iterator[FitJob]:
        for agent in agents:
            try:
                job = make(agent)
            except InputError as error:
                refused.append((agent, error))
            else:
                owners.append(agent)
                yield job

    prefix: Sequence[int] | None = None
    for cohort in cohorts(jobs(), settings, items):
        if prefix is None:
            prefix = shared_prefix(items.base, owners[0].history.task, settings.prompt_form)
        company, owners[:] = owners[: len(cohort)], owners[len(cohort) :]
        fits = fit(cohort, settings, items, prefix=prefix, **how)
        for agent, job, done in zip(company, cohort, fits, strict=True):
            if math.isfinite(done.loss):
                yield agent, conclude(agent, job, done)
            else:
                yield agent, InputError("the loss is not finite: the learning rate may be too high")
    yield from refused


def shared_prefix(base: BaseModel, task: Task, form: PromptForm) -> tuple[int, ...]:
    """The tokens every training prompt of a task begins with, whatever its items are."""
    unlike = [task.item_pair({task.field: text, task.answer: "1"}, form) for text in ("a", "Zz", "9")]
    prompts = [example.prompt for example in encode(base, unlike)]
    return prompts[0][: common_prefix(prompts)]


def _answers(
    items: ItemCache,
    release: OpenedRelease,
    asking: Sequence[tuple[Agent, PersonalShift | None, list[str]]],
    settings: EvaluationSettings,
) -> list[list[str]]:
    """Each agent's answers to its own prompts, under its own shift."""
    if not asking:
        return []
    base, task = items.base, asking[0][0].history.task
    shared = [] if settings.stage is Stage.BASE else [release.frozen(base)]
    personal = [own for _, own, _ in asking if own is not None]
    stack = Stack(shared, Slab.of(personal, base.device) if personal else None, settings.additive)
    questions = [
        Question(example.prompt, user)
        for user, (_, _, prompts) in enumerate(asking)
        for example in encode(base, [Pair(prompt, "") for prompt in prompts], reserve=MAX_NEW_TOKENS)
    ]
    form = settings.prompt_form
    batch = settings.batch_size
    kept = None if settings.stage is Stage.DIRECTIONS else items  # of the model as it is
    with release.edited(base, settings.stage):
        left = iter(answer(base, task, form, stack, questions, batch_size=batch, items=kept))
    return [list(islice(left, len(prompts))) for _, _, prompts in asking]


def _only(results: Iterator[Result]) -> Outcome:
    """The one agent's outcome; raises its InputError."""
    ((_, result),) = results
    if isinstance(result, InputError):
        raise result
    return result
