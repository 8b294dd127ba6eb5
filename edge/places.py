"""Where the shifts of several users act in one batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edge.slab import Stack


@dataclass(frozen=True)
class Places:
    """The shifted positions of a batch, gathered by user so that slabs apply to them in one product."""

    index: torch.Tensor
    """(users, positions) into the flattened (rows * tokens); users with fewer repeat one of theirs."""
    kept: torch.Tensor | None
    """Which of the flattened (users * positions) are not repetitions; None is all."""

    @classmethod
    def of(cls, mask: torch.Tensor, owners: Sequence[int], device: torch.device) -> "Places":
        """mask: (rows, tokens) bool on the CPU, true at shifted positions; owners: user of each row."""
        width = mask.shape[1]
        found: list[list[int]] = [[] for _ in range(max(owners) + 1)]
        for row, column in mask.nonzero().tolist():
            found[owners[row]].append(row * width + column)
        most = max(map(len, found))
        index = torch.tensor([(user + most * user[-1:])[:most] for user in found])
        kept = None
        if any(len(user) < most for user in found):
            kept = torch.cat([torch.arange(len(user)) + most * n for n, user in enumerate(found)]).to(device)
        return cls(index.to(device), kept)

    def change(self, stack: Stack, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (rows, tokens, d) with the stack applied at these positions."""
        flat = hidden.flatten(0, 1)
        index = self.index.flatten()
        shifted = stack(layer, flat[index].view(*self.index.shape, -1)).flatten(0, 1)
        if self.kept is not None:
            index, shifted = index[self.kept], shifted[self.kept]
        return flat.index_put((index,), shifted).view_as(hidden)
