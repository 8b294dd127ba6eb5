"""Whether a prior over people gives way to a person's free shift, by the loss on items held out of both.

The more items a person has, the less a prior knows better. Where a release leaves it to the person, both are
fitted to four items in five, and the form with the lower mean loss on the fifth is then fitted to all. An
item stays on its side whatever items come later.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fedperfit.edge.agent.opened_release import OpenedRelease
from fedperfit.edge.agent.outcome import Outcome
from fedperfit.edge.agent.side_by_side import shared_prefix, trained
from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.training import Fit, FitJob, Watch, mean_losses
from fedperfit.edge.fitting.form import Form, personal_shift
from fedperfit.edge.learning.choice import few, held_out
from fedperfit.protocol.messages.settings import PersonalSettings, TrainingSettings
from fedperfit.protocol.system.errors import InputError

if TYPE_CHECKING:
    from fedperfit.edge.agent.agent import Agent

RIVALS = (Form.PRIOR, Form.FREE)
"""The forms that are tried; the first wins a tie."""


def settled_forms(
    agents: Iterable["Agent"],
    release: OpenedRelease,
    personal: PersonalSettings,
    training: TrainingSettings,
    items: ItemCache,
    watch: Watch | None = None,
) -> dict["Agent", Form]:
    """Settle the form of each person's fit, for many side by side.

    Somebody with too few different items to hold any out is fitted under the prior. A fit that fails loses.

    Args:
        agents: People whose items decide; they share the base model of `items`.
        release: Collective shift, basis and prior.
        personal: Rank and mode of the personal shifts.
        training: Settings of the free fits.
        items: Cache shared by the agents.
        watch: Called before every step.

    Returns:
        Free or under the prior, by agent.
    """
    settled = dict.fromkeys(agents, RIVALS[0])
    lowest = dict.fromkeys(settled, math.inf)
    for form in RIVALS:
        losses = _held_out_losses(form, list(settled), release, personal, training, items, watch)
        for agent, loss in losses.items():
            if loss < lowest[agent]:
                lowest[agent], settled[agent] = loss, form
    return settled


def _held_out_losses(
    form: Form,
    agents: Sequence["Agent"],
    release: OpenedRelease,
    personal: PersonalSettings,
    training: TrainingSettings,
    items: ItemCache,
    watch: Watch | None,
) -> dict["Agent", float]:
    """Mean loss of each person's held-out items under a fit to the others; nothing of a fit that failed."""
    how: dict[str, Any] = {"frozen": [release.frozen(items.base)], "additive": personal.additive}
    held: dict[Agent, list[Example]] = {}
    losses: dict[Agent, float] = {}

    def job(agent: "Agent") -> FitJob[Any]:
        free = agent.personal_job(release, personal, training)
        if few(free.examples):
            raise InputError("there are too few items to hold any out")
        held[agent], rest = held_out(free.examples)
        return form.job(replace(free, examples=rest), release.people, training)

    def conclude(agent: "Agent", fitted: FitJob[Any], done: Fit) -> Outcome:
        prefix = shared_prefix(items.base, agent.history.task, training.prompt_form)
        own, shift = held.pop(agent), personal_shift(fitted.shift)
        (losses[agent],) = mean_losses([shift], own, training, items, prefix=prefix, **how)
        return Outcome(done.items, {})

    for _ in trained(agents, job, conclude, training, items, decay_rate=True, watch=watch, **how):
        pass
    return losses
