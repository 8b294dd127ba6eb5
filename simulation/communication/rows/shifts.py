"""Whole shifts: PerFit's collective shift as it is, and FedReFT's interventions in all layers."""

from typing import Any

from fedperfit.simulation.communication.row import Family
from fedperfit.simulation.communication.training.shift_row import ShiftRow

_HALF = {"transport-dtype": "bfloat16"}


class PerFit(ShiftRow):
    """R, W and b in fp32, which all rows are compared with."""

    name = "perfit"
    title = "PerFit: whole shifts, fp32"
    family = Family.WHOLE


class PerFitHalf(ShiftRow):
    """R, W and b in half the bytes."""

    name = "perfit-bfloat16"
    title = "PerFit: whole shifts, bf16"
    family = Family.WHOLE
    update = _HALF


class FedReft(ShiftRow):
    """LoReFT in all layers, as FedReFT uploads it (Siddika et al., 2025).

    There a client mixes the others' interventions with its own; whoever takes part in nothing has none, and
    gets the mean of all.
    """

    name = "fedreft"
    title = "FedReFT: interventions in all layers"
    family = Family.WHOLE

    def overrides(self) -> dict[str, Any]:
        """Return the federation's settings, with every layer shifted."""
        depth = self.context.base.card.layers
        return super().overrides() | {"layers": list(range(depth)), "layers-of": depth}
