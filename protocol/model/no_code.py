"""Reading a base model's folder by transformers: weights, sizes and words come of it, and no code.

A folder may name code of its own or of the hub's that reads it. Transformers asks at the terminal whether to
run that, where somebody who joins a cloud has just been asked for a yes; or takes it from the hub unasked.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedperfit.protocol.model.bounds.sizes import check_depth
from fedperfit.protocol.model.bounds.tokenizers import errors_told
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_CODE: dict[str, Any] = {"trust_remote_code": False}
"""Arguments with which transformers refuses a folder that needs code of its own, and asks nobody."""
_INSTALLED = {
    "attn_implementation": ("eager", "sdpa", "flex_attention"),
    "experts_implementation": ("eager", "grouped_mm", "batched_mm"),
}
"""What may compute the parts that a configuration has a say in; other names can be of code on the hub."""


def read_config(folder: Path) -> Any:
    """Read the configuration of a folder.

    Args:
        folder: Folder of a model.

    Returns:
        A `transformers.PretrainedConfig`.

    Raises:
        InputError: It names code that would have to be fetched, or an absurd number of layers.
        Exception: Whatever transformers raises at a strange file, or one that needs code of its own.
    """
    from transformers import AutoConfig

    check_depth(read_json(folder / "config.json"))
    config = AutoConfig.from_pretrained(folder, **NO_CODE)
    for part in _parts(config):
        for name, known in _INSTALLED.items():
            named = getattr(part, f"_{name}", None)
            if named not in (None, *known):
                raise InputError(
                    f"config.json: {name}={str(named)[:80]!r}: expected one of {', '.join(known)}"
                )
    return config


def read_tokenizer(folder: Path, **more: Any) -> "PreTrainedTokenizerBase":
    """Read the tokenizer of a folder.

    Args:
        folder: Folder of a model.
        more: Further arguments for transformers.

    Raises:
        InputError: It is strange, or needs code of its own.
    """
    from transformers import AutoTokenizer

    with errors_told():
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, **more, **NO_CODE)
        return tokenizer


def _parts(config: Any) -> Iterator[Any]:
    """Yield a configuration and those nested in it."""
    from transformers import PretrainedConfig

    yield config
    for value in vars(config).values():
        if isinstance(value, PretrainedConfig):
            yield from _parts(value)
