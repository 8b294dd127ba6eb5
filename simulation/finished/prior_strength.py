"""The strength of a prior over people, chosen on a finished run's others, never on a target's question.

Each of them is fitted under the prior on a few of their items and scored on the latest quarter, which the fit
does not see. They took part in the rounds, so that the collective shift knows their items a little already.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.people.whitened import Whitened, fit_under_prior
from fedperfit.edge.engine.training import mean_losses
from fedperfit.edge.fitting.form import personal_shift
from fedperfit.protocol.people.people import People
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_json
from fedperfit.simulation.cluster.scratch import scratch
from fedperfit.simulation.compare.context import MethodContext
from fedperfit.simulation.run.clients import OTHERS
from fedperfit.simulation.run.prior_run import open_prior_run
from fedperfit.simulation.run.settings import RunSettings

FILE = "prior-strength.json"
"""File in the run's folder with what was tried."""
_HELD = 0.25
"""Share of a history, its latest items, that fits are scored on."""


@dataclass(frozen=True)
class StrengthTrial:
    """A strength of the prior, and what people's fits under it are worth."""

    items: int
    """Number of items that each person was fitted on."""
    strength: float
    people: int
    """Number of people with so many items beside those held out."""
    loss: float
    """Mean loss of the answers held out, in nats per token."""
    without: float
    """The same under the collective shift alone."""


def try_strengths(
    run: Path,
    strengths: Sequence[float],
    lengths: Sequence[int],
    people: int,
) -> Iterator[StrengthTrial]:
    """Fit the others of a run under its prior at several strengths.

    Args:
        run: Folder of a finished run with `people-prior=true`; its clients' histories are read.
        strengths: Weights of the prior to try.
        lengths: Numbers of items to fit people on.
        people: Number of others at most.

    Yields:
        A trial for each number of items and strength.

    Raises:
        InputError: The folder holds no such run, or nobody has so many items.
    """
    with scratch() as folder:
        ground = _Ground.of(run, people, folder)
        for items in lengths:
            yield from ground.trials(items, strengths)


def choose(run: Path, trials: Sequence[StrengthTrial]) -> float:
    """Return the strength with the lowest loss over all numbers of items, and keep what was tried.

    Args:
        run: Folder of the run; a file is written into it.
        trials: All trials, of the same strengths for each number of items.
    """
    total: dict[float, float] = {}
    for trial in trials:
        total[trial.strength] = total.get(trial.strength, 0.0) + trial.loss
    chosen = min(total, key=lambda strength: (total[strength], -strength))
    write_json(run / FILE, {"strength": chosen, "trials": [vars(trial) for trial in trials]})
    return chosen


@dataclass(frozen=True)
class _Ground:
    """A finished run, with the others whose items are split."""

    context: MethodContext
    settings: RunSettings
    people: People
    frozen: Shift
    split: Sequence[tuple[Sequence[Example], Sequence[Example]]]
    """Each person's earlier examples, and those held out."""

    @classmethod
    def of(cls, run: Path, most: int, folder: Path) -> "_Ground":
        opened = open_prior_run(run)
        settings, people = opened.settings, opened.release.people
        assert people is not None
        others = [one for one in opened.clients if one.name.startswith(OTHERS) and one.items][:most]
        if not others:
            raise InputError(f"{run}: none of its clients is one of the others")
        items = ItemCache(opened.base)
        context = MethodContext(
            opened.base, others[0].task, settings.prompt_form, settings.seed, items, folder
        )
        split = []
        for other in others:
            examples = context.encode(context.pairs(other))
            held = max(1, round(_HELD * len(examples)))
            split.append((examples[:-held], examples[-held:]))
        return cls(context, settings, people, opened.release.frozen(opened.base), split)

    def trials(self, items: int, strengths: Sequence[float]) -> Iterator[StrengthTrial]:
        able = [(seen[-items:], held) for seen, held in self.split if len(seen) >= items]
        if not able:
            raise InputError(f"items={items}: none of the others has as many beside those held out")
        count = sum(len(held) for _, held in able)
        nothing = Shift.identity(self.frozen.shape, seed=0)
        without = sum(len(held) * self._loss(nothing, held) for _, held in able) / count
        for strength in strengths:
            prior = self.people.prior
            assert prior is not None
            people = replace(self.people, prior=replace(prior, strength=strength))
            fitted = [Whitened.start(people) for _ in able]
            fit_under_prior(fitted, [seen for seen, _ in able], self.context.items, frozen=[self.frozen])
            losses = (
                len(held) * self._loss(personal_shift(one), held)
                for one, (_, held) in zip(fitted, able, strict=True)
            )
            yield StrengthTrial(items, strength, len(able), sum(losses) / count, without)

    def _loss(self, shift: Shift, examples: Sequence[Example]) -> float:
        training = self.settings.personal_training()
        (loss,) = mean_losses(
            [shift], examples, training, self.context.items, frozen=[self.frozen], additive=False
        )
        return loss
