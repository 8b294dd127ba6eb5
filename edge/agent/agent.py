"""One person's agent, which owns the history, the base model and the personal shifts.

Its three actions take a packed collective shift and settings, and return a packed update, counts and metric
sums; nothing they return can hold a personal tensor, an item or a text. Agents that share a machine and a
base model act side by side (`contribute`, `personalize`, `evaluate`) with the same results in less time.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from fedperfit.edge.agent.basis_file import BASIS, BasisFile
from fedperfit.edge.agent.consent import personal_epsilon
from fedperfit.edge.agent.giving_way import settled_forms
from fedperfit.edge.agent.history import History, admit_part, read_history
from fedperfit.edge.agent.opened_release import OpenedRelease
from fedperfit.edge.agent.outcome import Contribution, Outcome
from fedperfit.edge.agent.side_by_side import trained
from fedperfit.edge.engine.answering import answer
from fedperfit.edge.engine.batching import Question
from fedperfit.edge.engine.examples import encode, latest_turns
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.scoring import score
from fedperfit.edge.engine.slab import Slab, Stack
from fedperfit.edge.engine.training import TOLD_STEP, Fit, FitJob, Trained, Watch
from fedperfit.edge.fitting.form import Form, personal_shift
from fedperfit.edge.sums.party import SumParty
from fedperfit.edge.vault.keys import KeyKeeper
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.edge.vault.stored_shift import FitRecord
from fedperfit.edge.vault.vault import VAULT, Vault
from fedperfit.edge.writing.streaming import free_prompt
from fedperfit.protocol.messages.settings import EvaluationSettings, PersonalSettings, Stage, TrainingSettings
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.shift.packing import pack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.seeds import seed_from
from fedperfit.protocol.tasks import Pair, Prompt

logger = logging.getLogger("fedperfit.edge")

_EVALUATED_TOGETHER = 64
"""Number of agents whose questions are answered side by side."""


class Agent:
    """Agent of one person, in the folder that `edge.agent.history` describes."""

    def __init__(
        self,
        folder: Path,
        base: BaseModel,
        items: ItemCache | None = None,
        keeper: KeyKeeper | None = None,
        encoder: str = "",
        salt: str = "",
    ) -> None:
        """Read the history.

        Args:
            folder: the person's own folder.
            base: the frozen model.
            items: cache shared by the agents of a process; by default one of this agent's own.
            keeper: keeps the vault's key; by default a file.
            encoder: sentence encoder, a folder or hub name; empty for the base model.
            salt: secret part of the seed of personal shifts; without it all who know the person's name know
                the seed.

        Raises:
            InputError: a file of the folder is missing or malformed.
        """
        self.base, self.encoder, self._salt = base, encoder, salt
        self.items = items or ItemCache(base)
        self.vault = Vault(folder / VAULT, keeper)
        self.basis = BasisFile(folder / BASIS)
        self._folder = folder
        self.sums: SumParty | None = None
        """The person's part in secure sums; None where it is not enrolled for any."""
        self.shared_pairs: int | None = None
        """Number of the first training pairs that sums for the cloud may be made of; None is all."""
        self.history = self.read()

    def read(self) -> History:
        """Read the history as it is now: the owner's own items, in files or imported, then those learned."""
        cut = latest_turns(self.base)
        self.history = history = read_history(self._folder, cut)
        parts = self.vault.imported() if history.sealed else {}
        for part, entries in (*parts.items(), ("items", self.vault.learned())):
            kind = "history" if part == "items" else part
            place = f"{history.name}: {part} of the vault, entries"
            told: list[str] = []
            getattr(history, part).extend(
                admit_part(history.task, kind, enumerate(entries, start=1), place, told.append, cut)
            )
            if told:
                logger.warning("%s: %d left out or with an answer taken as another word", place, len(told))
        return self.history

    def contribute(
        self, packed: bytes, settings: TrainingSettings, watch: Watch | None = None
    ) -> Contribution:
        """Train the collective shift on the client's own pairs for a round of stage 1; see `contribute`."""
        outcome = _only(contribute([self], packed, settings, self.items, watch))
        assert isinstance(outcome, Contribution)
        return outcome

    def personalize(self, packed: bytes, personal: PersonalSettings, training: TrainingSettings) -> Outcome:
        """Fit a personal shift on top of a release (stage 2) and keep it in the vault; see `personalize`."""
        return _only(personalize([self], packed, personal, training, self.items))

    def evaluate(self, packed: bytes, settings: EvaluationSettings) -> Outcome:
        """Answer the client's held-out questions at one stage and score the answers; see `evaluate`."""
        return _only(evaluate([self], packed, settings, self.items))

    def answer(self, release: OpenedRelease, question: str, settings: EvaluationSettings) -> str:
        """Answer one question at one stage, for the owner alone.

        Args:
            release: opened with the agent's base model.
            question: question of the task, in LaMP's form.
            settings: stage and slot.

        Raises:
            InputError: there is no shift for the stage, or the question is too long.
        """
        own = self.shift_for(release, settings)
        prompt = self.history.task.asked(question, settings.prompt_form)
        free_prompt(self.base, prompt, self.history.task.answer_tokens)
        ((answer,),) = _answers(self.items, release, [(self, own, [prompt])], settings)
        return answer

    @property
    def personal_epsilon(self) -> float:
        """What the next personal shift may tell of any one item; 0 without a limit."""
        return personal_epsilon(self._folder)

    @property
    def shared_history(self) -> History:
        """The part of the history that sums for the cloud may be made of."""
        if self.shared_pairs is None:
            return self.history
        answered = self.history.answered[: self.shared_pairs]
        items = self.history.items[: self.shared_pairs - len(answered)]
        return replace(self.history, answered=answered, items=items)

    def job(
        self,
        shift: Trained,
        release: OpenedRelease,
        order: str,
        settings: TrainingSettings,
        history: History | None = None,
        fewest: int = 1,
    ) -> FitJob[Trained]:
        """Prepare training a shift on a history.

        Args:
            shift: shift to be trained in place.
            release: release the shift belongs to.
            order: seed of the shuffling, any text.
            settings: prompt form and number of latest items.
            history: by default the agent's own.
            fewest: items of a step, as in `FitJob`.

        Raises:
            InputError: the history is empty, or the release is for another task.
        """
        self._check_task(release)
        pairs = (history or self.history).pairs(settings.prompt_form, settings.max_items)
        if not pairs:
            raise InputError("there is no history to train on")
        return FitJob(shift, encode(self.base, pairs), order, fewest=fewest)

    def personal_job(
        self, release: OpenedRelease, personal: PersonalSettings, training: TrainingSettings
    ) -> FitJob[PersonalShift]:
        """Prepare fitting a new personal shift on the history; raises InputError as `job` does."""
        order = f"{self._salt}{training.seed}/{self.history.name}"
        shape = replace(release.header.shape, rank=personal.rank)
        return self.job(PersonalShift.start(shape, seed=seed_from(order)), release, order, training)

    def form(self, release: OpenedRelease, training: TrainingSettings, epsilon: float) -> Form:
        """The form in which a personal shift is fitted on a release, under a limit or none."""
        items = len(self.history.pairs(training.prompt_form, training.max_items))
        return Form.of(release.people, items, epsilon)

    def check_epsilon(self, epsilon: float) -> None:
        """Refuse a personal shift that tells more of an item than its owner allows by now.

        Args:
            epsilon: promise that the noise of its fit was made for; 0 without noise.

        Raises:
            InputError: the owner has set a lower limit since the fit began.
        """
        limit = self.personal_epsilon
        if limit and not 0 < epsilon <= limit:
            raise InputError(
                f"personal-epsilon={limit:g} was set while a shift was fitted that tells more: it is not kept"
            )

    def shift_for(self, release: OpenedRelease, settings: EvaluationSettings) -> PersonalShift | None:
        """The personal shift that a stage needs, if it needs one.

        Args:
            release: release the shift acts on top of.
            settings: stage, slot and mode.

        Raises:
            InputError: the shift or the directions are missing, or do not fit the release.
        """
        if settings.stage is not Stage.BASE:
            self._check_task(release)
        release.edit(settings.stage)
        if settings.stage is not Stage.PERSONAL:
            return None
        return self.vault.load(settings.slot, release.shift_key(settings.additive))

    def _check_task(self, release: OpenedRelease) -> None:
        if release.header.task != self.history.task.id:
            raise InputError(
                f"the collective shift is for task {release.header.task}, not for {self.history.task.id}"
            )


Result = tuple[Agent, Outcome | InputError]
"""An agent, with the outcome of its action or the error that kept it from acting."""


def contribute(
    agents: Iterable[Agent],
    packed: bytes,
    settings: TrainingSettings,
    items: ItemCache,
    watch: Watch | None = None,
) -> Iterator[Result]:
    """Run `Agent.contribute` for many agents side by side.

    Args:
        agents: share the base model of `items`.
        packed: packed collective shift, or a release.
        settings: epochs, batch size and rates of the round.
        items: cache shared by the agents.
        watch: called before every step.

    Yields:
        Each agent with its outcome, as they come.
    """
    release = OpenedRelease.of(packed, items.base)

    def job(agent: Agent) -> FitJob[Shift]:
        order = f"{settings.seed}/{agent.history.name}/{release.header.round}"
        return agent.job(release.copy(), release, order, settings, agent.shared_history, TOLD_STEP)

    def conclude(agent: Agent, job: FitJob[Shift], done: Fit) -> Outcome:
        return Contribution(done.items, done.metrics, pack(job.shift, release.header))

    yield from trained(agents, job, conclude, settings, items, watch=watch)


def personalize(
    agents: Iterable[Agent],
    packed: bytes,
    personal: PersonalSettings,
    training: TrainingSettings,
    items: ItemCache,
) -> Iterator[Result]:
    """Run `Agent.personalize` for many agents side by side.

    Args:
        agents: share the base model of `items`.
        packed: packed collective shift, or a release.
        personal: rank, mode and slot of the personal shifts.
        training: epochs, batch size and rates of the fits.
        items: cache shared by the agents.

    Yields:
        Each agent with its outcome, as they come.
    """
    release = OpenedRelease.of(packed, items.base)
    by_form: dict[Form, list[Agent]] = {}
    epsilons: dict[Agent, float] = {}  # as the fits begin: an owner may set another one meanwhile
    for agent in agents:
        try:
            epsilons[agent] = agent.personal_epsilon
            by_form.setdefault(agent.form(release, training, epsilons[agent]), []).append(agent)
        except InputError as error:
            yield agent, error
    undecided = by_form.pop(Form.HELD_OUT, [])
    for agent, form in settled_forms(undecided, release, personal, training, items).items():
        by_form.setdefault(form, []).append(agent)

    def conclude(agent: Agent, job: FitJob[Any], done: Fit) -> Outcome:
        shift_key, shift = release.shift_key(personal.additive), personal_shift(job.shift)
        record = FitRecord(done.items, training=training.to_config(), epsilon=epsilons[agent])
        agent.check_epsilon(record.epsilon)
        agent.vault.store(personal.slot, shift, shift_key, record)
        return Outcome(done.items, done.metrics)

    for form, alike in by_form.items():

        def job(agent: Agent, form: Form = form) -> FitJob[Any]:
            free = agent.personal_job(release, personal, training)
            return form.job(free, release.people, training, epsilons[agent])

        yield from trained(
            alike,
            job,
            conclude,
            training,
            items,
            frozen=[release.frozen(items.base)],
            additive=personal.additive,
            decay_rate=True,
        )


def evaluate(
    agents: Iterable[Agent], packed: bytes, settings: EvaluationSettings, items: ItemCache
) -> Iterator[Result]:
    """Run `Agent.evaluate` for many agents side by side.

    Args:
        agents: share one task and the base model of `items`.
        packed: packed collective shift, or a release.
        settings: stage, slot and batch size.
        items: cache shared by the agents.

    Yields:
        Each agent with its outcome, as they come.
    """
    release = OpenedRelease.of(packed, items.base)
    agents = iter(agents)
    while cohort := list(islice(agents, _EVALUATED_TOGETHER)):
        asking = []
        for agent in cohort:
            asked = agent.history.asked(settings.prompt_form)
            try:
                if not asked:
                    raise InputError("there are no held-out questions to evaluate on")
                asking.append((agent, agent.shift_for(release, settings), [pair.prompt for pair in asked]))
            except InputError as error:
                yield agent, error
        for (agent, _, _), answers in zip(asking, _answers(items, release, asking, settings), strict=True):
            golds = [question["gold"] for question in agent.history.judged]
            yield agent, Outcome(len(golds), score(agent.history.task, answers, golds))


def _answers(
    items: ItemCache,
    release: OpenedRelease,
    asking: Sequence[tuple[Agent, PersonalShift | None, list[Prompt]]],
    settings: EvaluationSettings,
) -> list[list[str]]:
    """Answers to each agent's own prompts, under its own shift."""
    if not asking:
        return []
    base, task, form = items.base, asking[0][0].history.task, settings.prompt_form
    shared = [] if settings.stage is Stage.BASE else [release.frozen(base)]
    personal = [own for _, own, _ in asking if own is not None]
    stack = Stack(shared, Slab.of(personal, base.device) if personal else None, settings.additive)
    questions = [
        Question(example.prompt, user)
        for user, (_, _, prompts) in enumerate(asking)
        for example in encode(base, [Pair(prompt, "") for prompt in prompts], reserve=task.answer_tokens)
    ]
    cache = (
        None if settings.stage is Stage.DIRECTIONS else items
    )  # the edited model has other keys and values
    with release.edited(base, settings.stage):
        left = iter(answer(base, task, form, stack, questions, batch_size=settings.batch_size, items=cache))
    return [list(islice(left, len(prompts))) for _, _, prompts in asking]


def _only(results: Iterator[Result]) -> Outcome:
    """The one agent's outcome; raises its InputError."""
    ((_, result),) = results
    if isinstance(result, InputError):
        raise result
    return result
