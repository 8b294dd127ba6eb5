"""Decoder layers of an encoder-decoder model, over rows of a prompt that is read and a text that is written.

The decoder of transformers calls its layers with its own states, and with the encoder's beside them, the same
for every layer. Here each layer is called with the states of whole rows, and returns those: what is changed
between two layers, the prompt's states included, is what the layers above get.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fedperfit.protocol.system.errors import InputError


def packed(ids: torch.Tensor, chosen: torch.Tensor, padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring the chosen tokens of each row to its left, so that they stand where they would stand alone.

    Args:
        ids: (batch, tokens) token ids.
        chosen: (batch, tokens) bool.
        padding: Id behind the chosen tokens of shorter rows.

    Returns:
        Ids (batch, most chosen), and bool of the same shape, false at padding.
    """
    counts = chosen.sum(1)
    filled = torch.arange(int(counts.max()), device=ids.device) < counts[:, None]
    return ids.new_full(filled.shape, padding).masked_scatter(filled, ids[chosen]), filled


@dataclass
class Rows:
    """Rows in one pass through the decoder, and what its layers have made of them so far."""

    prompt: torch.Tensor
    """(batch, tokens) bool, true at tokens that the encoder reads."""
    written: torch.Tensor
    """(batch, tokens) bool, true at tokens that the decoder reads."""
    reads: torch.Tensor
    """(batch, E) bool, false at the encoder's padding."""
    writes: torch.Tensor
    """(batch, D) bool, false at the decoder's padding."""
    encoded: torch.Tensor
    """(batch, E, d) states of the encoder, which the decoder calls every layer with."""
    states: torch.Tensor
    """(batch, E, d) states of the prompt that the next layer reads in their place."""
    known: int = 0
    """Number of tokens that the decoder has read before and keeps the keys of, with the prompt's; 0 first."""
    returned: Any = None
    """What the layer before returned; None where none has run."""

    def join(self, hidden: torch.Tensor) -> torch.Tensor:
        """Put the prompt's states and the decoder's (batch, D, d) into rows (batch, tokens, d)."""
        joint = hidden.new_zeros(*self.prompt.shape, hidden.shape[2])
        if not self.known:
            joint = joint.index_put((self.prompt,), self.states[self.reads])
        return joint.index_put((self.written,), hidden[self.writes])

    def split(self, joint: torch.Tensor) -> torch.Tensor:
        """Take the decoder's states (batch, D, d) out of rows (batch, tokens, d), and keep the prompt's."""
        size = joint.shape[2]
        if not self.known:
            states = joint.new_zeros(*self.reads.shape, size)
            self.states = states.index_put((self.reads,), joint[self.prompt])
        return joint.new_zeros(*self.writes.shape, size).index_put((self.writes,), joint[self.written])

    def given(self, value: Any) -> Any:
        """Return an argument of a layer, with the prompt's states for the encoder's."""
        return self.states if value is self.encoded else value


class JointLayer(nn.Module):
    """A decoder layer over whole rows, which may be changed or skipped like one of a decoder-only model."""

    def __init__(self, layer: nn.Module) -> None:
        """Put rows in front of a decoder layer of transformers."""
        super().__init__()
        self.layer = layer

    def forward(self, hidden: torch.Tensor, rows: Rows, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the layer.

        Args:
            hidden: (batch, tokens, d) states of the rows.
            rows: Rows that they belong to.
            args: What the decoder calls the layer with behind its own states.
            kwargs: Likewise, by name.

        Returns:
            (batch, tokens, d) states after the layer.

        Raises:
            InputError: The layer is not called with the encoder's states.
        """
        if not any(value is rows.encoded for value in (*args, *kwargs.values())):
            raise InputError(f"{type(self.layer).__name__} does not read the encoder's states as they are")
        written = rows.split(hidden)
        given = {name: rows.given(value) for name, value in kwargs.items()}
        rows.returned = self.layer(written, *map(rows.given, args), **given)
        return rows.join(rows.returned[0] if isinstance(rows.returned, tuple) else rows.returned)


class StackedLayer(nn.Module):
    """What the decoder of transformers calls in a layer's place."""

    def __init__(self, layer: nn.Module) -> None:
        """Take the place of a decoder layer."""
        super().__init__()
        self.joint = JointLayer(layer)
        self.rows: Rows | None = None
        """Rows of the pass under way; None outside of one."""

    def forward(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the layer would: its states (batch, D, d), and whatever it hands on beside them."""
        rows = self.rows
        if rows is None:
            return self.joint.layer(hidden, *args, **kwargs)
        joint = self.joint(rows.join(hidden), rows, *args, **kwargs)
        if rows.returned is None:  # skipped, but the layers above need e.g. T5's relative positions
            rows.returned = self.joint.layer(hidden, *args, **kwargs)
        written = rows.split(joint)
        return (written, *rows.returned[1:]) if isinstance(rows.returned, tuple) else written
