"""LoRA by federated averaging, and what others made of it to send less."""

from typing import Any

import torch
from torch import nn

from fedperfit.simulation.communication.row import Family
from fedperfit.simulation.communication.training.adapter_row import AdapterRow


class Lora(AdapterRow):
    """LoRA by FedAvg: A and B are averaged, each for itself."""

    name = "lora"
    title = "LoRA r=8, FedAvg"
    family = Family.ADAPTER


class LoraRank1(Lora):
    """An eighth of the numbers."""

    name = "lora-r1"
    title = "LoRA r=1, FedAvg"
    rank = 1


class LoraInt8(Lora):
    """Changes of A and B with 8 bits each, as ours can be."""

    name = "lora-int8"
    title = "LoRA r=8, FedAvg, int8"
    codec = "int8"


class LoraSign(Lora):
    """Changes of A and B with one bit each and a scale for each tensor."""

    name = "lora-sign"
    title = "LoRA r=8, FedAvg, sign"
    codec = "sign"


class LoraHalfTheRounds(Lora):
    """Half the rounds, after twice the passes in each."""

    name = "lora-half-rounds"
    title = "LoRA r=8, FedAvg, half the rounds"
    fewer_rounds = 2


class FfaLora(AdapterRow):
    """FFA-LoRA (Sun et al., 2024): A stays as drawn from the seed, B is averaged, which is exact."""

    name = "ffa-lora"
    title = "FFA-LoRA r=8"
    family = Family.ADAPTER
    trained = ("lora_B",)
    averaged = ("lora_B",)


class LoraXs(AdapterRow):
    """LoRA-XS (Bałazy et al., 2024): an r x r matrix between the leading singular vectors of each weight.

    delta W = U_r S_r  M  V_r^T, of which M alone is trained and averaged. M begins at zero, so that training
    begins at the base model.
    """

    name = "lora-xs"
    title = "LoRA-XS r=8"
    family = Family.ADAPTER
    trained = ("lora_B.default.0",)
    averaged = ("lora_B.default.0",)

    def prepare(self, model: Any) -> None:
        """Put the weights' singular vectors into A and behind M, in place of B."""
        for module in model.modules():
            if hasattr(module, "lora_A") and "default" in module.lora_A:
                _between_singular_vectors(module)
        super().prepare(model)


class LoraXsRank16(LoraXs):
    """Four times the numbers."""

    name = "lora-xs-r16"
    title = "LoRA-XS r=16"
    rank = 16


@torch.no_grad()
def _between_singular_vectors(layer: Any) -> None:
    """Make a LoRA layer of PEFT's one of LoRA-XS, whose `lora_B` is M, then U_r S_r."""
    weight = layer.get_base_layer().weight  # (out, in)
    U, S, Vt = torch.linalg.svd(weight.float(), full_matrices=False)
    A, B = layer.lora_A["default"], layer.lora_B["default"]
    rank = A.weight.shape[0]
    A.weight.copy_(Vt[:rank])
    middle = nn.Linear(rank, rank, bias=False, device=weight.device, dtype=B.weight.dtype)
    nn.init.zeros_(middle.weight)
    B.weight.copy_(U[:, :rank] * S[:rank])
    layer.lora_B["default"] = nn.Sequential(middle, B)
