"""Descent of one person's objective by L-BFGS: each pass over their items is one value and one gradient.

The curvature is told by the last passes (Nocedal, 1980). A point at which the objective did not fall by a
ten-thousandth of what its slope promised is given up for one nearer to the last that did, so that a descent
never ends above where it began, and noughts and infinities far away do no harm.
"""

import math

import torch

_PROMISED = 1e-4
"""Least share of the fall that the slope promises (Armijo, 1966)."""
_BACK = 0.3
"""Share of a step that is kept after the objective did not fall."""
_CURVED = 1e-8
"""Least curvature along a step for the step to tell of it."""


class Descent:
    """Where a person's descent stands, and the point that it asks about next."""

    def __init__(self, size: int, first: float) -> None:
        """Begin at zero.

        Args:
            size: Number q of what is descended in.
            first: Length of the first step, at most.
        """
        self.point = torch.zeros(size, dtype=torch.double)
        """Best point so far: (q,)."""
        self.trial = self.point
        """Point whose value and gradient are wanted next: (q,)."""
        self.value = math.inf
        """Objective at the best point; infinite where it was never finite."""
        self._first = first
        self._gradient = self._direction = torch.zeros_like(self.point)
        self._share = 1.0
        self._moves: list[tuple[torch.Tensor, torch.Tensor]] = []

    def tell(self, value: float, gradient: torch.Tensor) -> None:
        """Take a step, or a shorter one from where the last began.

        Args:
            value: Objective at `trial`.
            gradient: Gradient there: (q,) fp64.
        """
        promised = float(self._direction @ self._gradient) * self._share
        finite = math.isfinite(value) and bool(gradient.isfinite().all())
        if not finite or value > self.value + _PROMISED * promised:
            self._share *= _BACK
        else:
            if math.isfinite(self.value):
                self._remember(self.trial - self.point, gradient - self._gradient)
            self.point, self.value, self._gradient = self.trial, value, gradient
            self._direction = self._downhill()
            length = float(self._direction.norm())
            self._share = 1.0 if self._moves else min(1.0, self._first / max(length, 1e-30))
        self.trial = self.point + self._share * self._direction

    def _remember(self, move: torch.Tensor, turn: torch.Tensor) -> None:
        """Keep a step with the turn of the gradient along it, where it shows a curvature."""
        if float(move @ turn) > _CURVED * float(move @ move):
            self._moves.append((move, turn))

    def _downhill(self) -> torch.Tensor:
        """Return minus the gradient times the inverse curvature that the moves show, by the two loops."""
        direction = -self._gradient
        if not self._moves:
            return direction
        shares = []
        for move, turn in reversed(self._moves):
            shares.append(float(move @ direction) / float(move @ turn))
            direction = direction - shares[-1] * turn
        move, turn = self._moves[-1]
        direction = direction * (float(move @ turn) / float(turn @ turn))
        for (move, turn), share in zip(self._moves, reversed(shares), strict=True):
            direction = direction + (share - float(turn @ direction) / float(move @ turn)) * move
        return direction
