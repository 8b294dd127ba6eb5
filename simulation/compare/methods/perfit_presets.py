"""PerFit without a search: values of a preset, and layers and ranks chosen from the others' gradients."""

from collections.abc import Sequence

from fedperfit.edge.agent.history import History
from fedperfit.edge.engine.layer_gradients import layer_gradient
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.selection import PERSONAL_SHARE, LayerGradient, select_layers
from fedperfit.simulation.compare.context import MethodContext, Values
from fedperfit.simulation.compare.methods.perfit import PerFit

PRESET = "small_model"
"""Name of the preset."""


class Preset(PerFit):
    """PerFit with the values of the preset for small models."""

    name = "perfit-preset"
    title = "PerFit, preset values"
    builds_on = None
    space = {}

    def __init__(self, context: MethodContext, values: Values) -> None:
        """Read the preset and fit its layers to the depth of the model.

        Args:
            context: Model, task and seed.
            values: Values that replace the preset's.
        """
        preset = read_preset(PRESET)
        depth = context.base.card.layers
        layers = sorted({round(layer * depth / preset["layers-of"]) for layer in preset["layers"]})
        given = {
            "layers": layers,
            "positions": preset["positions"],
            "rank": preset["collective-rank"],
            "epochs": preset["rounds"],
            "learning-rate": preset["collective-learning-rate"],
            "personal-rank": preset["personal-rank"],
            "personal-epochs": preset["personal-epochs"],
            "personal-learning-rate": preset["personal-learning-rate"],
        }
        super().__init__(context, given | dict(values))


class Auto(Preset):
    """PerFit with layers and ranks chosen from the others' layer gradients."""

    name = "perfit-auto"
    title = "PerFit, layers and ranks by gradients"

    def learn(self, others: Sequence[History]) -> None:
        layer_gradients = self.layer_gradients(others)
        chosen, own = select_layers(layer_gradients), select_layers(layer_gradients, share=PERSONAL_SHARE)
        where = {"layers": list(chosen.layers), "rank": chosen.rank, "personal-rank": own.rank}
        self.values = {**self.values, **where}
        super().learn(others)

    def layer_gradients(self, others: Sequence[History]) -> list[LayerGradient]:
        """Compute the layer gradients of each other user who has pairs."""
        at = Positions.parse(self.values["positions"])
        several = [self.context.pairs(other) for other in self.context.collective_histories(others)]
        return [
            layer_gradient(self.context.base, pairs, at, self.context.batch_size)
            for pairs in several
            if pairs
        ]
