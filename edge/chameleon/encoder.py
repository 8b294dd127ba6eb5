"""Loads sentence encoders of sentence-transformers, which select the items that represent a history."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch

from fedperfit.protocol.model.bounds.weights import strange_weights
from fedperfit.protocol.system.errors import InputError, line_of

Encode = Callable[[Sequence[str]], torch.Tensor]
"""Maps texts to vectors (texts, d) in fp32 on the CPU."""


@lru_cache(maxsize=1)
def sentence_encoder(name: str, device: str) -> Encode:
    """Load a sentence encoder, once per process.

    Args:
        name: folder or hub name.
        device: device it runs on.

    Raises:
        InputError: the encoder cannot be loaded, or sentence-transformers is not installed.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except Exception as error:  # beside an ImportError, what libraries raise that do not fit together
        raise InputError(
            f"an encoder needs sentence-transformers ({line_of(str(error))}): "
            "pip install 'fedperfit[encoder]'"
        ) from None
    try:
        model = SentenceTransformer(name, device=device)
    except Exception as error:  # whatever the model's own code raises
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{name}: no sentence encoder ({reason})") from None
    strange = strange_weights(model)
    if strange:
        raise InputError(f"{name}: the weights {strange} are not all finite numbers")

    def encode(texts: Sequence[str]) -> torch.Tensor:
        vectors = model.encode(list(texts), convert_to_tensor=True, show_progress_bar=False)
        return vectors.float().cpu()

    return encode
