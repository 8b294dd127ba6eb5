"""Ways in which a simulated client stores the base model."""

from typing import Literal

Storage = Literal["fp32", "bf16", "fp16", "8-bit", "4-bit"]
"""How a client stores the base model; `fp32` is as it is loaded."""
