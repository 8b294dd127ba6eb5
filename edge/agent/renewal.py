"""A deployed edge's personal shift over time: fitted on a release, carried to the next, taught item by item.

Which is better on a new release, the old personal shift or one fitted anew, only items can tell that
neither was fitted on. So a fifth of the items, chosen by their own hash, is held out of a second shift, the
sibling, fitted beside the one in use and treated like it ever after. On a new release the old sibling and a
new one are compared on the held-out items, and the shift in use goes the way of the better sibling.

Whether a personal shift answers at all is chosen the same way (`edge/agent/choice.py`): the collective shift
alone, or the group's directions on top of it, may clearly suit a person better. Until there are enough items
for a sibling to tell, shifts are fitted on parts of them for that.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedperfit.edge.agent.agent import Agent, OpenedRelease, Outcome, shared_prefix
from fedperfit.edge.agent.choice import Candidate, Choice, Examples, Intervention, choose, few, held_out
from fedperfit.edge.engine.examples import Example, encode
from fedperfit.edge.engine.training import Fit, FitJob, Watch, fit, mean_losses
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.edge.vault.vault import FitRecord
from fedperfit.protocol.messages.settings import PersonalSettings, Stage, TrainingSettings
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import PromptForm

FITTED, CARRIED, LEARNED = "fitted", "carried over", "learned"
_STEPS = 4
"""Taken per lesson."""
_RATE = 0.25
"""Of the rate the shift was fitted with, at a lesson's first step; it falls linearly to a tenth."""


@dataclass(frozen=True)
class Lesson:
    """What `learn` did."""

    learned: int
    """Items in the vault now."""
    steps: int
    loss: float
    """Mean over the steps, in nats per target token."""


def renew(
    agent: Agent,
    release: OpenedRelease,
    version: int,
    personal: PersonalSettings,
    training: TrainingSettings,
    watch: Watch | None = None,
) -> tuple[Outcome, str]:
    """Personalize on a release: fit anew, or carry the old shift over, whichever validates better.

    Returns what may be told, and `fitted` or `carried over`, which is the owner's to know.
    """
    job = agent.personal_job(release, personal, training)
    held, rest = held_out(job.examples)
    jobs = [job]
    if not few(job.examples):
        jobs.append(replace(agent.personal_job(release, personal, training), examples=rest))
    fits = _finite(_fit(agent, release, personal, training, jobs, watch))
    shifts = [one.shift for one in jobs]
    origin = FITTED
    old = _old(agent, personal, training, job.shift)
    if old is not None and len(jobs) == 2:
        candidates = [old[1], shifts[1]]
        carried, fitted = mean_losses(
            *(candidates, held, training, agent.items),
            frozen=[release.frozen(agent.base)],
            additive=personal.additive,
            prefix=_prefix(agent, training),
        )
        if carried <= fitted:
            shifts, origin = list(old), CARRIED
    chosen = _chosen(agent, release, personal, training, job.examples, shifts[1:], watch)
    fit_record = FitRecord(fits[0].items, origin, version, training.to_config(), chosen.name, chosen.losses)
    _store(agent, release, personal, shifts, fit_record)
    return Outcome(fits[0].items, fits[0].metrics), origin


def learn(
    agent: Agent,
    items: list[dict[str, object]],
    release: OpenedRelease | None,
    personal: PersonalSettings,
    watch: Watch | None = None,
) -> Lesson:
    """Keep `items` in the vault and take a few steps on them, each with kept items replayed beside them.

    Without a personal shift on `release` the items are kept for the next `renew`.
    Raises InputError for an item that lacks what its task needs; then nothing is kept.
    """
    task = agent.history.task
    for item in items:
        task.item_pair(item, PromptForm.LAMP)
        if task.labels and task.parse(str(item[task.answer])) is None:
            raise InputError(f"{task.answer}={item[task.answer]!r}: expected one of {', '.join(task.labels)}")
    agent.vault.learn(items)
    agent.read()
    count = len(agent.vault.learned())
    if release is None or personal.slot not in agent.vault.slots():
        return Lesson(count, 0, math.nan)
    kept, shift = agent.vault.open(personal.slot)
    if kept.shift_key != release.shift_key(personal.additive):
        return Lesson(count, 0, math.nan)
    fitted = TrainingSettings.from_config(kept.fit_record.training)
    training = fitted.replace(epochs=1, learning_rate=fitted.learning_rate * _RATE)
    pairs = agent.history.pairs(training.prompt_form, training.max_items)
    examples = encode(agent.base, pairs)
    new = examples[-len(items) :]
    jobs = [_lesson(shift, examples, len(new), training, count)]
    held, rest = held_out(examples)
    sibling = _sibling_of(agent, release, personal)
    if sibling is not None and not few(examples):
        jobs.append(_lesson(sibling, rest, sum(e not in held for e in new), training, count))
    fits = _finite(_fit(agent, release, personal, training, jobs, watch))
    shifts = [job.shift for job in jobs]
    fit_record = replace(kept.fit_record, items=len(examples), origin=LEARNED)
    _store(agent, release, personal, shifts, fit_record)
    chosen = _chosen(agent, release, personal, fitted, examples, shifts[1:], watch)
    _store(agent, release, personal, shifts, replace(fit_record, stage=chosen.name, judged=chosen.losses))
    return Lesson(count, fits[0].steps, fits[0].loss)


def _lesson(
    shift: Shift, examples: Sequence[Example], new: int, training: TrainingSettings, number: int
) -> FitJob:
    """Steps that hold the `new` last examples and others drawn from those before them."""
    rng = random.Random(f"{training.seed}/{number}")
    known = range(len(examples) - new)
    fresh = list(range(len(examples) - new, len(examples)))
    groups = [fresh[n : n + training.batch_size] for n in range(0, len(fresh), training.batch_size)] or [[]]
    batches = []
    for _ in range(_STEPS):
        for group in groups:
            replayed = rng.sample(known, min(len(known), max(training.batch_size - len(group), 0)))
            batches.append([*group, *replayed])
    return FitJob(shift, examples, "", batches)


def _fit(
    agent: Agent,
    release: OpenedRelease,
    personal: PersonalSettings,
    training: TrainingSettings,
    jobs: Sequence[FitJob],
    watch: Watch | None,
) -> list[Fit]:
    return fit(
        *(jobs, training, agent.items),
        frozen=[release.frozen(agent.base)],
        additive=personal.additive,
        decay_rate=True,
        prefix=_prefix(agent, training),
        watch=watch,
    )


def _finite(fits: list[Fit]) -> list[Fit]:
    if not all(math.isfinite(done.loss) for done in fits):
        raise InputError("the loss is not finite: the learning rate may be too high")
    return fits


def _chosen(
    agent: Agent,
    release: OpenedRelease,
    personal: PersonalSettings,
    training: TrainingSettings,
    examples: Examples,
    sibling: Sequence[Shift],
    watch: Watch | None,
) -> Choice:
    """The stage that answers. sibling: none, or the one there is."""
    frozen = release.frozen(agent.base)

    def learn(parts: Sequence[Examples]) -> list[Intervention]:
        shifts = sibling
        if not sibling:
            jobs = [replace(agent.personal_job(release, personal, training), examples=part) for part in parts]
            _fit(agent, release, personal, training, jobs, watch)
            shifts = [job.shift for job in jobs]
        return [Intervention([frozen, shift], additive=personal.additive) for shift in shifts]

    candidates = {Stage.COLLECTIVE.value: Candidate.fixed(Intervention([frozen]))}
    if release.directions is not None:
        candidates[Stage.DIRECTIONS.value] = Candidate.fixed(Intervention([frozen], release.directions))
    candidates[Stage.PERSONAL.value] = Candidate(learn, learns=True)
    return choose(agent.base, examples, candidates, Stage.PERSONAL.value, watch)


def _prefix(agent: Agent, training: TrainingSettings) -> tuple[int, ...]:
    return shared_prefix(agent.base, agent.history.task, training.prompt_form)


def _sibling(personal: PersonalSettings) -> str:
    return f"{personal.slot}-held-out"


def _old(
    agent: Agent, personal: PersonalSettings, training: TrainingSettings, like: Shift
) -> tuple[PersonalShift, PersonalShift] | None:
    """The shift in use and its sibling, where both are of the shape and prompts that are asked for now."""
    slots = (personal.slot, _sibling(personal))
    if not set(slots) <= set(agent.vault.slots()):
        return None
    (kept, shift), (_, sibling) = (agent.vault.open(slot) for slot in slots)
    same = kept.shift_key.fingerprint == agent.base.card.fingerprint
    same &= kept.fit_record.training["prompt-form"] == training.prompt_form
    if same and kept.shape == like.shape == sibling.shape and kept.shift_key.additive == personal.additive:
        return shift, sibling
    return None


def _sibling_of(agent: Agent, release: OpenedRelease, personal: PersonalSettings) -> PersonalShift | None:
    """The sibling on this release; none where there were too few items, or a kill came between the two."""
    if _sibling(personal) not in agent.vault.slots():
        return None
    kept, shift = agent.vault.open(_sibling(personal))
    return shift if kept.shift_key == release.shift_key(personal.additive) else None


def _store(
    agent: Agent,
    release: OpenedRelease,
    personal: PersonalSettings,
    shifts: Sequence[Shift],
    fit_record: FitRecord,
) -> None:
    shift_key = release.shift_key(personal.additive)
    for slot, shift in zip((personal.slot, _sibling(personal)), shifts, strict=False):
        assert isinstance(shift, PersonalShift)
        agent.vault.store(slot, shift, shift_key, fit_record)
