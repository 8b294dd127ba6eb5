"""Renews a deployed edge's personal shift: fits it on a release, carries it on, teaches it new items.

Only items that neither shift was fitted on can tell whether the old personal shift or a new one is better on
a new release. So a fifth of the items, chosen by their own hash, is held out of a second shift, the sibling,
which is fitted beside the one in use and treated like it from then on. On a new release the old sibling and
a new one are compared on the held-out items, and the shift in use follows the better sibling.

Whether a personal shift answers at all is chosen likewise (`edge/fitting/choice.py`): the collective shift
alone, or the group's directions on top of it, may clearly suit a person better. As long as there are too few
items for a sibling, shifts are fitted on parts of them for this choice.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.giving_way import settled_forms
from fedperfit.edge.agent.history import admit_part
from fedperfit.edge.agent.opened_release import OpenedRelease
from fedperfit.edge.agent.outcome import Outcome
from fedperfit.edge.agent.side_by_side import shared_prefix
from fedperfit.edge.engine.examples import Example, encode, latest_turns
from fedperfit.edge.engine.training import Fit, FitJob, Watch, fit, mean_losses
from fedperfit.edge.fitting.choice import Candidate, Choice, Examples, Intervention, choose, few, held_out
from fedperfit.edge.fitting.form import Form, personal_shift
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.edge.vault.stored_shift import FitRecord, StoredShift
from fedperfit.protocol.messages.settings import PersonalSettings, Stage, TrainingSettings
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError, count_of
from fedperfit.protocol.tasks.door import nothing_let_in

FITTED, CARRIED, LEARNED = "fitted", "carried over", "learned"
_STEPS = 4
"""Number of passes over the new items in a lesson."""
_RATE = 0.25
"""Learning rate at a lesson's first step, as a share of the fit's rate; it falls linearly to a tenth."""


@dataclass(frozen=True)
class Lesson:
    """Result of a call of `learn`."""

    learned: int
    """Number of items in the vault now."""
    steps: int
    """Number of training steps taken; 0 where the items wait for the next release."""
    loss: float
    """Mean loss over the steps, in nats per target token; NaN without steps, and where it may not be told."""
    added: int = 0
    """Number of items that were learned now."""
    remarks: Sequence[str] = ()
    """What was left out or taken as another word, without a word of it."""


def renew(
    agent: Agent,
    release: OpenedRelease,
    version: int,
    personal: PersonalSettings,
    training: TrainingSettings,
    watch: Watch | None = None,
) -> tuple[Outcome, str]:
    """Personalize on a release: fit a new shift, or carry the old one over where it validates better.

    Args:
        agent: the person's agent.
        release: release to personalize on.
        version: version of the release.
        personal: rank, mode and slot of the personal shift.
        training: epochs, batch size and rates of the fit.
        watch: called before every step.

    Returns:
        The outcome, and `fitted` or `carried over`, which is for the owner alone.

    Raises:
        InputError: there is no history, the release does not fit, the loss is not finite, or the owner set a
            lower limit on what the shift may tell meanwhile.
    """
    job, epsilon = agent.personal_job(release, personal, training), agent.personal_epsilon
    if agent.form(release, training, epsilon) is Form.PRIVATE:
        done = _renewed_privately(agent, release, version, personal, training, job.examples, epsilon, watch)
        return done, FITTED
    held, rest = held_out(job.examples)
    parts = [job.examples] if few(job.examples) else [job.examples, rest]
    form = _settled(agent, release, personal, training, epsilon, watch)
    fits, shifts = _fit_anew(agent, release, personal, training, parts, form, epsilon, watch)
    _finite(fits)
    origin = FITTED
    old = _old(agent, personal, training, shifts[0])
    if old is not None and len(parts) == 2:
        candidates = [old[1], shifts[1]]
        carried, fitted = mean_losses(
            candidates,
            held,
            training,
            agent.items,
            frozen=[release.frozen(agent.base)],
            additive=personal.additive,
            prefix=_prefix(agent, training),
        )
        if carried <= fitted:
            shifts, origin = list(old), CARRIED
    chosen = _chosen(agent, release, personal, training, job.examples, shifts[1:], watch)
    fit_record = FitRecord(fits[0].items, origin, version, training.to_config(), chosen.name, chosen.losses)
    agent.check_epsilon(epsilon)
    _store(agent, release, personal, shifts, fit_record)
    return Outcome(fits[0].items, fits[0].metrics), origin


def _renewed_privately(
    agent: Agent,
    release: OpenedRelease,
    version: int,
    personal: PersonalSettings,
    training: TrainingSettings,
    examples: Examples,
    epsilon: float,
    watch: Watch | None,
) -> Outcome:
    """Fit anew under noise; no choice by held-out items, which would tell of them, and no sibling."""
    (done,), shifts = _fit_anew(agent, release, personal, training, [examples], Form.PRIVATE, epsilon, watch)
    record = FitRecord(done.items, FITTED, version, training.to_config(), epsilon=epsilon)
    agent.check_epsilon(epsilon)
    _store(agent, release, personal, shifts, record)
    return Outcome(done.items, done.metrics)


def learn(
    agent: Agent,
    items: Sequence[object],
    release: OpenedRelease | None,
    personal: PersonalSettings,
    watch: Watch | None = None,
) -> Lesson:
    """Keep new items in the vault and take a few steps on them, with former items replayed in each step.

    An item that lacks a field of its task or has another label costs itself alone, and is told in the lesson.
    One that was learned before, as where a call was killed and is made again, is taught but not added again.
    Without a personal shift on the release the items are kept for the next `renew`.

    Args:
        agent: the person's agent.
        items: fields of the task's items by name, JSON values; None stands for an empty line, an InputError
            for what could not be read.
        release: release in force, if there is one.
        personal: mode and slot of the personal shift.
        watch: called before every step.

    Raises:
        InputError: no item can be used, the steps fail, or the owner set a lower limit on what the shift may
            tell meanwhile; then nothing is kept.
    """
    remarks: list[str] = []
    given = [(number, item) for number, item in enumerate(items, start=1) if item is not None]
    cut = latest_turns(agent.base)
    new = list(admit_part(agent.history.task, "history", given, "line", remarks.append, cut))
    if not new:
        raise nothing_let_in(remarks) if remarks else InputError("there is no item to learn")
    agent.read()
    learned = agent.vault.learned()
    added = [item for item in new if item not in learned]
    if len(added) < len(new):
        remarks.append(f"{count_of(len(new) - len(added), 'item')} learned before: not added again")
        agent.history.items[:] = [item for item in agent.history.items if item not in new]
    count = len(learned) + len(added)
    agent.history.items.extend(new)
    try:
        taught = _taught(agent, len(new), count, release, personal, watch)
        if taught is not None:
            agent.check_epsilon(taught[2].epsilon)
        if added:
            agent.vault.learn(added)
    finally:
        agent.read()
    if taught is None or release is None:
        return Lesson(count, 0, math.nan, len(added), remarks)
    fits, shifts, fit_record, examples = taught
    _store(agent, release, personal, shifts, fit_record)
    if fit_record.epsilon:
        return Lesson(count, fits[0].steps, math.nan, len(added), remarks)
    fitted = TrainingSettings.from_config(fit_record.training)
    chosen = _chosen(agent, release, personal, fitted, examples, shifts[1:], watch)
    _store(agent, release, personal, shifts, replace(fit_record, stage=chosen.name, judged=chosen.losses))
    loss = fits[0].loss
    return Lesson(count, fits[0].steps, math.nan if loss is None else loss, len(added), remarks)


def _taught(
    agent: Agent,
    new: int,
    count: int,
    release: OpenedRelease | None,
    personal: PersonalSettings,
    watch: Watch | None,
) -> tuple[list[Fit], list[PersonalShift], FitRecord, list[Example]] | None:
    """Take the steps of `learn` on the `new` last items of the history; None without a personal shift.

    count: number of learned items, those included.
    """
    if release is None or personal.slot not in agent.vault.slots():
        return None
    kept, shift = agent.vault.open(personal.slot)
    if kept.shift_key != release.shift_key(personal.additive):
        return None
    fitted = TrainingSettings.from_config(kept.fit_record.training)
    training = fitted.replace(epochs=1, learning_rate=fitted.learning_rate * _RATE)
    examples = encode(agent.base, agent.history.pairs(training.prompt_form, training.max_items))
    fresh = examples[-new:]
    held, rest = held_out(examples)
    sibling = _sibling_of(agent, release, personal)
    both = sibling is not None and not few(examples)
    epsilon = agent.personal_epsilon
    form = agent.form(release, fitted, epsilon)
    if form is Form.HELD_OUT:  # what the last fit on this release was; the next one asks again
        form = Form.PRIOR if _in_basis(release, shift) else Form.FREE
    fit_record = replace(kept.fit_record, items=len(examples), origin=LEARNED, epsilon=epsilon)
    if form is Form.PRIVATE:
        fit_record, both = replace(fit_record, stage=Stage.PERSONAL.value, judged={}), False
    if form is not Form.FREE:  # a fit of few numbers is made anew, on all items
        parts = [examples, rest] if both else [examples]
        fits, shifts = _fit_anew(agent, release, personal, fitted, parts, form, epsilon, watch)
        return _finite(fits), shifts, fit_record, examples
    jobs = [_lesson(shift, examples, len(fresh), training, count)]
    if sibling is not None and both:
        jobs.append(_lesson(sibling, rest, sum(e not in held for e in fresh), training, count))
    fits = _finite(_fit(agent, release, personal, training, jobs, watch))
    return fits, [job.shift for job in jobs], fit_record, examples


def _settled(
    agent: Agent,
    release: OpenedRelease,
    personal: PersonalSettings,
    training: TrainingSettings,
    epsilon: float,
    watch: Watch | None,
) -> Form:
    """The form of a fit on all items, after asking those held out where it is theirs to say."""
    form = agent.form(release, training, epsilon)
    if form is not Form.HELD_OUT:
        return form
    return settled_forms([agent], release, personal, training, agent.items, watch)[agent]


def _in_basis(release: OpenedRelease, shift: Shift) -> bool:
    people = release.people
    return people is not None and Coordinates.of_shift(people.basis, shift) is not None


def _lesson(
    shift: PersonalShift, examples: Sequence[Example], new: int, training: TrainingSettings, number: int
) -> FitJob[PersonalShift]:
    """Prepare steps that hold the `new` last examples and others drawn from those before them."""
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


def _fit_anew(
    agent: Agent,
    release: OpenedRelease,
    personal: PersonalSettings,
    training: TrainingSettings,
    parts: Sequence[Examples],
    form: Form,
    epsilon: float,
    watch: Watch | None,
) -> tuple[list[Fit], list[PersonalShift]]:
    """Fit new shifts on parts of the person's items, all in the form that suits all items."""
    jobs = []
    for part in parts:
        free = replace(agent.personal_job(release, personal, training), examples=part)
        jobs.append(form.job(free, release.people, training, epsilon))
    fits = _fit(agent, release, personal, training, jobs, watch)
    return fits, [personal_shift(job.shift) for job in jobs]


def _fit(
    agent: Agent,
    release: OpenedRelease,
    personal: PersonalSettings,
    training: TrainingSettings,
    jobs: Sequence[FitJob[Any]],
    watch: Watch | None,
) -> list[Fit]:
    return fit(
        jobs,
        training,
        agent.items,
        frozen=[release.frozen(agent.base)],
        additive=personal.additive,
        decay_rate=True,
        prefix=_prefix(agent, training),
        watch=watch,
    )


def _finite(fits: list[Fit]) -> list[Fit]:
    if any(done.failed for done in fits):
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
    """Choose the stage that answers; sibling: the sibling, or nothing where there is none."""
    frozen = release.frozen(agent.base)

    def learn(parts: Sequence[Examples]) -> list[Intervention]:
        shifts: Sequence[Shift] = sibling
        if not sibling:
            form = _settled(agent, release, personal, training, 0.0, watch)
            _, shifts = _fit_anew(agent, release, personal, training, parts, form, 0.0, watch)
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
    """The shift in use and its sibling, where both have the shape, mode and prompts of a new shift."""
    slots = (personal.slot, _sibling(personal))
    if not set(slots) <= set(agent.vault.slots()):
        return None
    (stored, shift), (beside, sibling) = (agent.vault.open(slot) for slot in slots)
    same = _made_together(stored, beside)
    same &= stored.shift_key.fingerprint == agent.base.card.fingerprint
    same &= stored.fit_record.training["prompt-form"] == training.prompt_form
    same &= stored.shift_key.additive == personal.additive
    return (shift, sibling) if same and stored.shape == like.shape == sibling.shape else None


def _made_together(stored: StoredShift, beside: StoredShift) -> bool:
    """Whether a shift and a sibling are of one fit; another fit or a kill may have come between the two."""
    ours, theirs = stored.fit_record, beside.fit_record
    alike = (ours.version, ours.items, ours.training) == (theirs.version, theirs.items, theirs.training)
    return alike and stored.shift_key == beside.shift_key


def _sibling_of(agent: Agent, release: OpenedRelease, personal: PersonalSettings) -> PersonalShift | None:
    """The sibling on this release; None where there were too few items, or a kill came between the two."""
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
    if len(shifts) == 1:
        agent.vault.drop(_sibling(personal))  # first: it would be another shift's, or tell what noise hides
    for slot, shift in zip((personal.slot, _sibling(personal)), shifts, strict=False):
        assert isinstance(shift, PersonalShift)
        agent.vault.store(slot, shift, shift_key, fit_record)
