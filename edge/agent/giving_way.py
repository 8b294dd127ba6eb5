"""Whether a prior over people gives way to a person's free shift, by the loss on items held out of both.

The more items a person has, the less a prior knows better. Where a release leaves it to the person, both are
fitted to four items in five. All are then fitted freely if the free shift's mean loss on the fifth is lower
by more than one standard error, and under the prior otherwise: of two models that losses hardly tell apart
the simpler one (the one-standard-error rule, Breiman et al., Classification and Regression Trees, 1984). An
item stays on its side whatever items come later.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from fedperfit.edge.agent.opened_release import OpenedRelease
from fedperfit.edge.agent.outcome import Outcome
from fedperfit.edge.agent.side_by_side import trained
from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.training import Fit, FitJob, Watch
from fedperfit.edge.fitting.choice import Intervention, few, held_out, losses
from fedperfit.edge.fitting.form import Form, personal_shift
from fedperfit.protocol.messages.settings import PersonalSettings, TrainingSettings
from fedperfit.protocol.system.errors import InputError

if TYPE_CHECKING:
    from fedperfit.edge.agent.agent import Agent


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
    asked = list(agents)
    simple, free = (
        _held_out_losses(form, asked, release, personal, training, items, watch)
        for form in (Form.PRIOR, Form.FREE)
    )
    return {agent: _settled(simple.get(agent), free.get(agent)) for agent in asked}


def _settled(simple: torch.Tensor | None, free: torch.Tensor | None) -> Form:
    """Choose by the losses (items,) of both fits, None of one that failed."""
    if free is None:
        return Form.PRIOR
    if simple is None:
        return Form.FREE
    gain = simple - free
    return Form.FREE if gain.mean() > gain.std() / len(gain) ** 0.5 else Form.PRIOR


def _held_out_losses(
    form: Form,
    agents: Sequence["Agent"],
    release: OpenedRelease,
    personal: PersonalSettings,
    training: TrainingSettings,
    items: ItemCache,
    watch: Watch | None,
) -> dict["Agent", torch.Tensor]:
    """Losses (items,) of each person's held-out items under a fit to the others, without fits that failed."""
    frozen = release.frozen(items.base)
    held: dict[Agent, list[Example]] = {}
    found: dict[Agent, torch.Tensor] = {}

    def job(agent: "Agent") -> FitJob[Any]:
        free = agent.personal_job(release, personal, training)
        if few(free.examples):
            raise InputError("there are too few items to hold any out")
        held[agent], rest = held_out(free.examples)
        return form.job(replace(free, examples=rest), release.people, training)

    def conclude(agent: "Agent", fitted: FitJob[Any], done: Fit) -> Outcome:
        answers = Intervention([frozen, personal_shift(fitted.shift)], additive=personal.additive)
        own = losses(items.base, held.pop(agent), answers)
        if bool(own.isfinite().all()):
            found[agent] = own
        return Outcome(done.items, {})

    how: dict[str, Any] = {"frozen": [frozen], "additive": personal.additive, "decay_rate": True}
    for _ in trained(agents, job, conclude, training, items, watch=watch, **how):
        pass
    return found
