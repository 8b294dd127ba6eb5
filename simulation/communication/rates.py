"""Rates that every row tries: the same ones, spread evenly over the logarithm of their range."""

import math
import random
from dataclasses import dataclass

from fedperfit.simulation.communication.settings import CommunicationSettings


@dataclass(frozen=True)
class Rates:
    """Learning rates of one training."""

    shared: float
    """Rate of what travels, constant in a round."""
    personal: float
    """Peak rate of what a person fits and keeps, where a row has such a part."""


def drawn_rates(settings: CommunicationSettings) -> list[Rates]:
    """Return as many pairs of rates as the settings ask for, each in the middle of a part of the range.

    Personal rates are the same ones in an order that is drawn.

    Args:
        settings: Range and number of the draws.
    """
    low, high = math.log(settings.lowest_rate), math.log(settings.highest_rate)
    part = (high - low) / settings.draws
    rates = [float(f"{math.exp(low + part * (n + 0.5)):.3g}") for n in range(settings.draws)]
    personal = random.Random("communication/rates").sample(rates, len(rates))
    return [Rates(*pair) for pair in zip(rates, personal, strict=True)]
