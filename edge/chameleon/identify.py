"""Identifies an edit from the hidden states of preference pairs: by SVD and CCS, with the layers to edit.

P and N: (layers, pairs, d), the states of personalized and neutral texts; the maths is in
`protocol/shift/probe.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch

from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.shift.probe import Frame, Moments, Probe, evaluate, leading, minimise, terms

RESTARTS = 10
EPOCHS = 1000
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.01
"""Weight decay of the probe; these four values are Burns et al.'s (2023)."""


class Identify(StrEnum):
    """Method by which the two directions are found."""

    HYBRID = "hybrid"
    """The personalized one by SVD, the neutral one by CCS: the paper's best."""
    SVD = "svd"
    """Both by SVD, each of its own side's states."""
    CCS = "ccs"
    """Both by the probe, which separates the sides along one line; what it tells apart is removed."""


class ProbeKind(StrEnum):
    """Method by which the CCS probe is found."""

    LOW_RANK = "low-rank"
    """Probe in a few leading directions, kept short (`protocol/shift/probe.py`)."""
    BURNS = "burns"
    """Probe free in all directions, as in Burns et al.'s code."""


class Edit(StrEnum):
    """Edits that are made: both, or one alone as in the paper's ablations."""

    BOTH = "both"
    PERSONALIZED = "personalized"
    NEUTRAL = "neutral"


@dataclass(frozen=True)
class States:
    """Hidden states of preference pairs after each decoder layer."""

    personalized: torch.Tensor
    """(layers, pairs, d) fp32 states of the personalized texts."""
    neutral: torch.Tensor
    """(layers, pairs, d) fp32 states of the neutral texts."""

    def __len__(self) -> int:
        return self.personalized.shape[1]

    @classmethod
    def none(cls, base: BaseModel) -> "States":
        """States of no pairs, with the model's layers and hidden size."""
        empty = torch.empty(base.card.layers, 0, base.card.hidden_size)
        return cls(empty, empty)

    @classmethod
    def joined(cls, several: "Sequence[States]") -> "States":
        """The union of several people's pairs."""
        return cls(
            torch.cat([one.personalized for one in several], dim=1),
            torch.cat([one.neutral for one in several], dim=1),
        )


def burns(states: States, seed: int) -> Probe:
    """Train Burns et al.'s own probes, free in all d numbers; the restart with the lowest loss wins.

    AdamW acts on each number alone, so that many probes trained together are the probes trained singly.

    Args:
        states: at least two pairs.
        seed: of the restarts.

    Returns:
        One probe per layer, with its loss.
    """
    P, N = (side - side.mean(1, keepdim=True) for side in (states.personalized, states.neutral))
    layers, _, size = P.shape
    start = torch.Generator().manual_seed(seed)
    bound = size**-0.5  # of torch's linear layer
    theta = (torch.rand(layers, size, RESTARTS, generator=start) * 2 - 1) * bound
    bias = (torch.rand(layers, 1, RESTARTS, generator=start) * 2 - 1) * bound
    theta, bias = theta.requires_grad_(), bias.requires_grad_()
    optimizer = torch.optim.AdamW([theta, bias], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, foreach=True)

    def losses() -> torch.Tensor:
        return terms(P @ theta + bias, N @ theta + bias).mean(1)

    with torch.enable_grad():
        for _ in range(EPOCHS):
            optimizer.zero_grad()
            losses().sum().backward()
            optimizer.step()
    with torch.no_grad():
        lowest, restart = losses().min(dim=1)
        chosen = theta.detach().gather(2, restart[:, None, None].expand(-1, size, 1))[..., 0]
    return Probe(chosen, lowest)


def low_rank(contributors: Sequence[Sequence[Moments]], people: Sequence[States], seed: int) -> Probe:
    """Train the probe of `protocol/shift/probe.py` on people's pairs together.

    Args:
        contributors: moments of each person, one or several.
        people: states of each person's pairs.
        seed: of the start.
    """
    frame = Frame.of([one for person in contributors for one in person])
    coordinates = [frame.coordinates(one.personalized, one.neutral) for one in people]
    pairs = sum(len(one) for one in people)

    def everyone(probes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sums = [evaluate(p, n, probes) for p, n in coordinates]
        loss, gradient = (torch.stack(part).sum(0) / pairs for part in zip(*sums, strict=True))
        return loss, gradient

    return minimise(everyone, frame, seed)


def directions(
    people: Sequence[States],
    *,
    identify: Identify = Identify.HYBRID,
    probe: ProbeKind = ProbeKind.LOW_RANK,
    edit: Edit = Edit.BOTH,
    edited: int,
    seed: int,
) -> Directions | None:
    """Identify the edit of the layers with the lowest CCS loss, from one person's pairs or a group's.

    Args:
        people: states of each person's pairs.
        identify: method by which the directions are found.
        probe: method by which the CCS probe is found.
        edit: edits that are made; the other direction is zero.
        edited: number of layers to edit.
        seed: of the probe.

    Returns:
        The directions; None for fewer than two pairs, as one pair centred by its own mean has no direction.
    """
    people = [one for one in people if len(one)]
    if sum(len(one) for one in people) < 2:
        return None
    joined = States.joined(people)
    if probe is ProbeKind.BURNS:
        trained = burns(joined, seed)
    else:
        several = len(people) > 1
        contributors = [[moments(one)] for one in people] if several else [moments_of_each(joined)]
        trained = low_rank(contributors, people, seed)
    count = min(edited, len(trained.loss))
    layers = sorted(trained.loss.argsort(stable=True)[:count].tolist())
    P, N = joined.personalized[layers], joined.neutral[layers]
    by_probe = trained.theta[layers]
    personalized = by_probe if identify is Identify.CCS else first_direction(P)
    neutral = first_direction(N) if identify is Identify.SVD else by_probe
    if edit is Edit.NEUTRAL:
        personalized = torch.zeros_like(personalized)
    if edit is Edit.PERSONALIZED:
        neutral = torch.zeros_like(neutral)
    return Directions.of(layers, personalized, neutral)


def first_direction(H: torch.Tensor) -> torch.Tensor:
    """First right singular vectors (layers, d) of states H (layers, pairs, d), uncentred."""
    return leading([Moments.of(H, H)])


def moments(states: States, rows: int = 0) -> Moments:
    """Moments that one contributor sends.

    Args:
        states: states of the contributor's pairs.
        rows: number of leading directions kept; 0 for all.
    """
    return Moments.of(states.personalized, states.neutral, rows)


def moments_of_each(states: States) -> list[Moments]:
    """Moments of every pair as a contributor of its own."""
    return [
        Moments.of(p[:, None], n[:, None])
        for p, n in zip(states.personalized.unbind(1), states.neutral.unbind(1), strict=True)
    ]
