"""The prompt positions a shift acts on: `fN+lM`, the first N and the last M prompt tokens."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedperfit.protocol.system.errors import InputError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Positions:
    """The first and the last tokens of a prompt, e.g. PerFit's `f7+l7` or `l7`."""

    first: int
    """Number N of tokens from the start of the prompt."""
    last: int
    """Number M of tokens from the end of the prompt."""

    def __post_init__(self) -> None:
        if self.first < 0 or self.last < 0 or self.first + self.last == 0:
            raise InputError(
                f"positions=f{self.first}+l{self.last}: at least one prompt position must be shifted"
            )

    @classmethod
    def parse(cls, text: str) -> "Positions":
        """Parse `f7+l7`, `l7` or `f7`.

        Raises:
            InputError: For anything else.
        """
        match = re.fullmatch(r"(?:f([0-9]{1,4}))?\+?(?:l([0-9]{1,4}))?", text)
        if match is None or not any(match.groups()) or ("+" in text) != all(match.groups()):
            raise InputError(f"positions={text!r}: expected the form f7+l7, l7 or f7")
        return cls(first=int(match[1] or 0), last=int(match[2] or 0))

    def __str__(self) -> str:
        parts = [f"f{self.first}"] * bool(self.first) + [f"l{self.last}"] * bool(self.last)
        return "+".join(parts)

    def mask(self, prompt: "torch.Tensor") -> "torch.Tensor":
        """Mark the shifted positions of a padded batch.

        A prompt shorter than N + M is shifted once per token.

        Args:
            prompt: (batch, tokens) bool, true at prompt tokens (neither padding nor target).

        Returns:
            (batch, tokens) bool.
        """
        prompt = prompt.bool()
        from_start = prompt.cumsum(dim=1)
        from_end = prompt.sum(dim=1, keepdim=True) - from_start + 1
        return prompt & ((from_start <= self.first) | (from_end <= self.last))
