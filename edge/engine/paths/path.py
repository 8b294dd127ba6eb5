"""The ways in which rows may go through a model, from the fastest to the plainest."""

from dataclasses import dataclass
from enum import Enum


class Path(Enum):
    """A way of running rows, and what is kept between passes."""

    FAST = "fast"
    """Rows side by side, with kept hidden states, keys and values."""
    ALONE = "alone"
    """Each row by itself, with the model's own cache while it is continued."""
    BARE = "bare"
    """Each row by itself and whole in every pass, with nothing kept."""


@dataclass(frozen=True)
class Paths:
    """The path that is right for each kind of work with one model and shifts at given places."""

    training: Path = Path.FAST
    """Way of training steps, `FAST` or `BARE`."""
    labels: Path = Path.FAST
    """Way of scoring labels, `FAST` or `BARE`."""
    text: Path = Path.FAST
    """Way of continuing a prompt."""
    told: str = ""
    """One line that says what is not fast, and why; empty where all is."""
