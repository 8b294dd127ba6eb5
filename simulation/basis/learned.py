"""A basis that public people teach: R and P descend jointly with everyone's own coordinates.

    min over R, P, theta, theta_i   sum over people of their mean loss under theta + theta_i,
                                    + ridge / 2 |theta_i|^2 / (items of a person)

What stays frozen afterwards is a representation in which people are told apart by few numbers, and the
coordinates are the heads that FedRep (Collins et al., 2021) leaves to each client. Those of these people are
not kept, but for the sum that says how they differ. Rounds start at the identity all the same: the mean of
public people is not that of a federation.
"""

import json
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fedperfit.cloud.job.settings import JobSettings
from fedperfit.edge.agent.side_by_side import shared_prefix
from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.paths.check import checked
from fedperfit.edge.engine.slab import CoordinateSlab, Stack
from fedperfit.edge.engine.step import StepRow, step_losses
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.shift.basis import Basis
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic
from fedperfit.protocol.system.seeds import seed_from
from fedperfit.protocol.tasks import Pair, task_by_name
from fedperfit.simulation.basis.public import GROUP, PAIRS, make_basis

PEOPLE = 256
"""Public people who teach a basis, at most."""
ITEMS = 64
"""Latest items of each, at most."""
STEPS = 500
"""Steps of the descent."""
_SIDE_BY_SIDE = 40
"""People of one step, at most."""
_BATCH = 8
"""Items of each of them."""
_RATE = 1e-2
"""Rate of Adam for coordinates at first; all rates fall linearly to a tenth."""
_ROW_RATE = 2e-3
"""Rate of Adam for R and P."""
_RIDGE = 0.3
"""Weight of the squared coordinates of a person beside the sum of their losses."""
_KEPT_EVERY = 25
"""Steps after which what is learned so far is kept on file."""
OnStep = Callable[[int, int], None]
"""Called with the number of steps that are done, and of all."""


def learn_basis(
    kept: Path,
    base: BaseModel,
    settings: JobSettings,
    people: Sequence[Sequence[Pair]],
    on_step: OnStep = lambda done, steps: None,
    steps: int = STEPS,
) -> tuple[Basis, torch.Tensor]:
    """Learn a basis from people, beginning at the one that their items show.

    Args:
        kept: File of what is learned so far, with which a stopped work goes on to the same basis. Whoever
            calls removes it when the basis is written.
        base: The base model.
        settings: Task, prompts, shape and columns of the updates, with layers and ranks chosen.
        people: Training pairs of each person.
        on_step: Told of the progress.
        steps: Steps of the descent.

    Returns:
        The basis, and everyone's coordinates in it: (people, n) fp64.

    Raises:
        InputError: If fewer than two people have items, or the descent ends in numbers that are not finite.
    """
    with_items = [list(pairs) for pairs in people if pairs]
    if len(with_items) < 2:
        raise InputError("a basis is learned from two people at least")
    first = [pair for pairs in with_items for pair in pairs[:GROUP]][:PAIRS]
    start = make_basis(base, settings, first)
    lesson = _Lesson(base, settings, start, with_items)
    state = _State(kept, lesson.key(steps), start, len(with_items), base.device)
    on_step(state.steps, steps)
    for step in range(state.steps, steps):
        fall = 1 - 0.9 * step / steps
        state.move(lesson.objective(state, step), _RATE * fall, _ROW_RATE * fall)
        if (step + 1) % _KEPT_EVERY == 0 or step + 1 == steps:
            state.keep()
            on_step(step + 1, steps)
    return state.finished(start)


class _State:
    """What is learned: R, P, the mean coordinates and everyone's own, with Adam's moments, on file."""

    def __init__(self, path: Path, key: str, start: Basis, people: int, device: torch.device) -> None:
        layers, rank, columns = len(start.shape.layers), start.shape.rank, start.columns
        shapes = [(layers, rank, columns), (layers, rank)]
        zeros = [torch.zeros(shape) for shape in shapes + [(people, *shape) for shape in shapes]]
        values = [tensor.to(device, copy=True) for tensor in (start.R, start.P, *zeros)]
        self.R, self.P, self.mean_A, self.mean_b, self.A, self.b = self._values = [
            value.requires_grad_() for value in values
        ]
        self._adam = torch.optim.Adam([{"params": self._values[2:]}, {"params": self._values[:2]}])
        self._path, self._key, self.steps = path, key, 0
        if path.exists():
            with suppress(SafetensorError), safe_open(path, "pt") as file:
                if file.metadata() == {"of": key}:
                    self._restore({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118

    def move(self, objective: torch.Tensor, rate: float, row_rate: float) -> None:
        """Take a step of Adam down the objective; raises InputError where it is not finite."""
        if not bool(objective.isfinite()):
            raise InputError("the basis cannot be learned: the loss is not finite")
        for group, its_rate in zip(self._adam.param_groups, (rate, row_rate), strict=True):
            group["lr"] = its_rate
        self._adam.zero_grad()
        objective.backward()
        self._adam.step()
        self.steps += 1

    def keep(self) -> None:
        """Write all that the next step depends on."""
        tensors = {"steps": torch.tensor(self.steps)}
        for number, value in enumerate(self._values):
            moments = self._adam.state[value]
            tensors |= {
                f"{number}": value.detach(),
                f"{number}/mean": moments["exp_avg"],
                f"{number}/square": moments["exp_avg_sq"],
            }
        write_atomic(self._path, save(tensors, metadata={"of": self._key}))

    def _restore(self, tensors: dict[str, torch.Tensor]) -> None:
        self.steps = int(tensors["steps"])
        with torch.no_grad():
            for number, value in enumerate(self._values):
                value.copy_(tensors[f"{number}"])
                self._adam.state[value] = {
                    "step": torch.tensor(float(self.steps)),
                    "exp_avg": tensors[f"{number}/mean"].to(value.device),
                    "exp_avg_sq": tensors[f"{number}/square"].to(value.device),
                }

    @torch.no_grad()
    def finished(self, start: Basis) -> tuple[Basis, torch.Tensor]:
        """Make R and P orthonormal, and everyone's coordinates those of the same shifts in them."""
        R, from_R = torch.linalg.qr(self.R.double().cpu().mT)
        P, from_P = torch.linalg.qr(self.P.double().cpu().mT)
        rows = [axes.mT.float().contiguous() for axes in (R, P)]
        basis = Basis(start.shape, start.task, start.fingerprint, *rows)
        A = from_R @ self.A.double().cpu() @ from_P.mT
        b = (from_R @ self.b.double().cpu()[..., None])[..., 0]
        return basis, torch.cat([A.flatten(1), b.flatten(1)], 1)


class _Lesson:
    """People's items, and what they cost under what is learned."""

    def __init__(
        self, base: BaseModel, settings: JobSettings, start: Basis, people: Sequence[Sequence[Pair]]
    ) -> None:
        self._base, self._settings, self._start = base, settings, start
        self._people = [encode(base, pairs) for pairs in people]
        self._items = sum(map(len, self._people)) / len(people)
        prefix = shared_prefix(base, task_by_name(settings.task), settings.prompt_form)
        shape = start.shape
        path = checked(base, list(shape.layers), shape.positions).training
        cache = ItemCache(base)
        self._prepared = cache.prepare(self._people, shape.layers[0], shape.positions, prefix, path)

    def key(self, steps: int) -> str:
        """Name what decides the basis: the start, the items, the seed, how far it goes."""
        told = [[[example.prompt, example.target] for example in own] for own in self._people]
        about = [self._start.digest, self._settings.seed, steps, told]
        return sha256(json.dumps(about).encode()).hexdigest()

    def objective(self, state: _State, step: int) -> torch.Tensor:
        """Return what a step descends: over some people, on some items of each, drawn by the step alone."""
        draws = random.Random(seed_from(f"{self._settings.seed}/learned basis/{step}"))
        drawn = draws.sample(range(len(self._people)), min(_SIDE_BY_SIDE, len(self._people)))
        rows = [
            StepRow(place, example, self._prepared.items[example])
            for place, person in enumerate(drawn)
            for example in draws.sample(self._people[person], min(_BATCH, len(self._people[person])))
        ]
        own_A, own_b = state.A[drawn], state.b[drawn]
        shape = self._start.shape
        slab = CoordinateSlab(shape, state.R, state.P, state.mean_A + own_A, state.mean_b + own_b)
        losses = step_losses(self._base, Stack((), slab, False), self._prepared, rows)
        ridge = own_A.square().sum() + own_b.square().sum()
        total: torch.Tensor = losses.sum() + _RIDGE / 2 / self._items * ridge
        return total
