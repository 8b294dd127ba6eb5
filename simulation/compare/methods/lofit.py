"""LoFiT (Yin et al., 2024): offsets on the outputs of a few attention heads, chosen by learned scales.

First z <- (1 + a) z with an L1 penalty on a is learned on the others: the heads whose a is longest are
chosen. Then z <- z + v on these heads alone is learned per user. z: (batch, tokens, heads, head size), the
input of the layer's output projection; at all positions, decoding included.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn

from fedperfit.edge.agent.history import History
from fedperfit.protocol.model.config import attention_sizes
from fedperfit.protocol.model.layers import decoder_layers
from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.compare.building_blocks.baseline_training import train
from fedperfit.simulation.compare.building_blocks.shifts import COLLECTIVE_EPOCHS, PERSONAL_EPOCHS, RATES
from fedperfit.simulation.compare.context import people_digest
from fedperfit.simulation.compare.method import Family, Method

PENALTY = 5e-4
"""Weight of the scales' absolute values, as in LoFiT's code."""
_OUTPUTS = ("o_proj", "out_proj", "c_proj", "dense", "o")
"""Names that architectures give to an attention's output projection."""


class LoFiT(Method):
    """Offsets per user, on heads that are chosen on the others."""

    name = "lofit"
    title = "LoFiT"
    family = Family.STEERING
    collective = True
    space = {
        "share": (0.1, 0.2, 0.4),
        "epochs": COLLECTIVE_EPOCHS,
        "learning-rate": RATES,
        "personal-epochs": PERSONAL_EPOCHS,
        "personal-learning-rate": RATES,
    }

    def learn(self, others: Sequence[History]) -> None:
        context, values = self.context, self.values
        others = context.collective_histories(others)
        pairs = context.sampled([pair for other in others for pair in context.pairs(other)])
        rate, epochs = values["learning-rate"], values["epochs"]

        def make() -> bytes:
            scales = nn.Parameter(torch.zeros(self._shape, device=context.base.device))
            with self._changed_heads(lambda layer, z: z * (1 + scales[layer])):
                train(
                    context.base,
                    [scales],
                    context.encode(pairs),
                    epochs=epochs,
                    learning_rate=rate,
                    batch_size=context.batch_size,
                    order=f"{context.seed}/collective",
                    penalty=PENALTY,
                )
            return save({"norms": scales.detach().norm(dim=-1)})

        about = [rate, epochs, people_digest(others), len(pairs), context.seed]
        norms = load(context.keep("collective/heads", about, make))["norms"]
        count = max(1, round(values["share"] * norms.numel()))
        chosen = norms.flatten().topk(count).indices
        self._chosen = torch.zeros(norms.numel(), dtype=torch.bool).index_fill(0, chosen, True)
        self._chosen = self._chosen.view(norms.shape).to(context.base.device)

    def fit(self, history: History) -> Any:
        context, values = self.context, self.values
        pairs = context.pairs(history)
        if not pairs:
            return None
        start = torch.Generator().manual_seed(context.number(history.name, "offsets"))
        offsets = torch.randn(int(self._chosen.sum()), self._shape[-1], generator=start) * 1e-3
        v = nn.Parameter(offsets.to(context.base.device))
        with self._changed_heads(lambda layer, z: z + self._spread(v)[layer]):
            train(
                context.base,
                [v],
                context.encode(pairs),
                epochs=values["personal-epochs"],
                learning_rate=values["personal-learning-rate"],
                batch_size=context.batch_size,
                order=f"{context.seed}/{history.name}",
            )
        return v.detach()

    def answer(self, fitted: Any, questions: Sequence[str]) -> list[str]:
        prompts = [self.context.prompt(question) for question in questions]
        if fitted is None:
            return self.context.answer(prompts)
        offsets = self._spread(fitted)
        with self._changed_heads(lambda layer, z: z + offsets[layer]):
            return self.context.answer(prompts)

    def parameters(self, fitted: Any) -> int:
        return 0 if fitted is None else int(fitted.numel())

    def bytes_down(self) -> int:
        """Count the bytes of the list of heads, one bit each; a contributor would send scales."""
        return -(-self._chosen.numel() // 8)

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Numbers of layers and heads, and the size of a head."""
        model = self.context.base.model
        attention = attention_sizes(model.config)
        return len(decoder_layers(model)), attention.heads, attention.head_size

    def _spread(self, v: torch.Tensor) -> torch.Tensor:
        """Put v at the chosen heads and zero elsewhere: (layers, heads, head size)."""
        spread = torch.zeros(self._shape, device=v.device)
        return spread.index_put((self._chosen,), v)

    @contextmanager
    def _changed_heads(self, change: Callable[[int, torch.Tensor], torch.Tensor]) -> Iterator[None]:
        """Within the block every head's output z goes through `change`."""
        _, heads, size = self._shape

        def hook(layer: int) -> Callable[[nn.Module, Any], Any]:
            def before(module: nn.Module, args: Any) -> Any:
                z = args[0].unflatten(-1, (heads, size))
                return (change(layer, z).to(z.dtype).flatten(-2), *args[1:])

            return before

        layers = decoder_layers(self.context.base.model)
        handles = [
            _output(layer).register_forward_pre_hook(hook(number)) for number, layer in enumerate(layers)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _output(layer: nn.Module) -> nn.Module:
    """Find the projection that joins a layer's heads.

    Raises:
        InputError: The architecture has projections with other names.
    """
    modules: dict[str, nn.Module] = dict(layer.named_modules())
    for name, module in modules.items():
        if ("attn" in name or "attention" in name.lower()) and name.rpartition(".")[2] in _OUTPUTS:
            return module
    raise InputError(f"{type(layer).__name__}: no attention output projection with a name that LoFiT knows")
