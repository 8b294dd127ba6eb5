"""The files of a base model: weights, an adapter of them if there is one, and the fingerprint of it all."""

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from fedperfit.protocol.model.bounds.patterns import check_patterns
from fedperfit.protocol.model.bounds.sizes import MOST_TENSORS
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json

CHAT_TEMPLATE = "chat_template.jinja"
ADAPTER = "adapter_config.json"
"""File that makes a folder one of an adapter, as PEFT saves it."""
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "merges.txt", "vocab.txt"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", CHAT_TEMPLATE),
)
_VOCABULARIES = (".model", ".spm", ".tiktoken", ".codes")
"""Endings of the files that tokenizers of other kinds keep their vocabulary in."""
_SAYS_NOTHING = {
    *("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "architectures"),
    *("base_model_name_or_path", "inference_mode", "revision", "peft_version"),
}
"""Fields of configurations that change no answer of the stored weights."""
_LONGEST_POINTER = 1024
_EMBEDDED = (
    "93ffaf64d9403723d7750fc014d468f792286bcf279d580e41ba1094b3ee29e8",
    "6a5e5ea0cc560201ab0b4827125b16df1dd93e5a86b9ff74394b88a68ea8fa4f",
)
"""Fingerprint of the model that ships, and the one that it keeps from before configurations counted."""


@dataclass(frozen=True)
class StoredModel:
    """Folders of a base model."""

    weights: Path
    """Folder with the weights and their configuration."""
    adapter: Path | None
    """Folder with an adapter of them, often the same one; None without an adapter."""

    @property
    def tokenizer(self) -> Path:
        """Folder with the tokenizer: the adapter's where it has one."""
        if self.adapter is not None and (self.adapter / "tokenizer_config.json").is_file():
            return self.adapter
        return self.weights

    def weight_files(self) -> list[Path]:
        """List the files that transformers loads weights from.

        Raises:
            InputError: One of them is missing.
        """
        folder = self.weights
        index = folder / "model.safetensors.index.json"
        files = [folder / "model.safetensors"]
        if index.is_file() and not files[0].is_file():
            shards = read_json(index)
            if not isinstance(shards, dict) or not isinstance(shards.get("weight_map"), dict):
                raise InputError(f"{index}: no weight_map")
            files = [folder / str(name) for name in sorted(set(map(str, shards["weight_map"].values())))]
        for file in (folder / "config.json", *files):
            if not file.is_file():
                raise InputError(f"base model {folder}: {file.name} is missing{_way_out(folder)}")
        for file in folder.iterdir():
            if file.is_file() and _is_pointer(file):
                raise InputError(
                    f"base model {folder}: {file.name} is a pointer of Git LFS: fetch the file itself"
                )
        return files

    def whole_numbers(self) -> list[str]:
        """List the stored tensors that hold whole numbers, as those of quantised models do."""
        names = []
        for file in self.weight_files():
            with safe_open(file, framework="pt") as tensors:
                kinds = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
            names += [name for name, kind in kinds.items() if kind[:1] in ("I", "U") or kind == "BOOL"]
        return names

    def adapter_files(self) -> list[Path]:
        """List the files of the adapter, none without one.

        Raises:
            InputError: Its weights are missing, or PEFT, which applies them, or it has patterns without end.
        """
        if self.adapter is None:
            return []
        file = self.adapter / _ADAPTER_WEIGHTS
        if not file.is_file():
            raise InputError(f"base model {self.adapter}: it has {ADAPTER} but no {_ADAPTER_WEIGHTS}")
        if importlib.util.find_spec("peft") is None:
            raise InputError(f"base model {self.adapter}: its adapter needs PEFT: pip install peft")
        try:
            check_patterns(_telling(read_json(self.adapter / ADAPTER)))
        except InputError as error:
            raise InputError(f"base model {self.adapter}: {error}") from None
        return [file]


def _way_out(folder: Path) -> str:
    """Name what to do about a folder whose weights are of another kind."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for file in files:
        if file.suffix in (".bin", ".pt", ".pth"):
            return (
                f"; {file.name} is of a kind that can run code: load it once and save it with save_pretrained"
            )
    for file in files:
        if file.suffix in (".h5", ".msgpack", ".onnx", ".npz") or file.name.startswith("consolidated"):
            return f"; {file.name} is of another program: take the folder that transformers reads"
    return ""


def _is_pointer(file: Path) -> bool:
    """Whether a file is only what Git LFS puts in the place of a large one."""
    if file.stat().st_size > _LONGEST_POINTER:
        return False
    return file.read_bytes().startswith(b"version https://git-lfs")


@dataclass(frozen=True)
class Fingerprint:
    """Identity and sizes of a stored model."""

    value: str
    """SHA-256 over weights, adapter, configuration, tokenizer and chat template."""
    former: str
    """SHA-256 over weights and tokenizer alone, as releases of former versions name it."""
    parameters: int
    """Number of stored parameters."""
    dtype: str
    """Data type of the weights that were read last."""


def fingerprint(model: StoredModel) -> Fingerprint:
    """Read all files that change a model's answers.

    Args:
        model: Its folders.

    Raises:
        InputError: One is missing or broken.
    """
    weights = _Tensors(model.weight_files())
    total = hashlib.sha256()
    for digest in weights.digests:
        total.update(digest)
    for name in _TOKENIZER_FILES:
        path = model.tokenizer / name
        if path.is_file():
            total.update(name.encode() + hashlib.sha256(path.read_bytes()).digest())
    former = total.hexdigest()
    for path in _other_vocabularies(model.tokenizer):
        total.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    total.update(b"config" + _canonical(model.weights / "config.json"))
    adapter = _Tensors(model.adapter_files())
    if model.adapter is not None:
        total.update(b"adapter" + _canonical(model.adapter / ADAPTER))
        for digest in adapter.digests:
            total.update(digest)
    value = total.hexdigest()
    parameters = weights.parameters + adapter.parameters
    return Fingerprint(_EMBEDDED[1] if value == _EMBEDDED[0] else value, former, parameters, weights.dtype)


def _other_vocabularies(folder: Path) -> list[Path]:
    files = [path for path in folder.iterdir() if path.suffix in _VOCABULARIES and path.is_file()]
    return sorted(path for path in files if path.name not in _TOKENIZER_FILES)


class _Tensors:
    """Digests, number and type of the tensors in some files, independent of how they are spread."""

    def __init__(self, files: list[Path]) -> None:
        found: dict[str, bytes] = {}
        self.parameters, self.dtype = 0, ""
        for file in files:
            try:
                with safe_open(file, framework="pt") as tensors:
                    if len(tensors.keys()) > MOST_TENSORS:
                        raise InputError(f"base model {file}: more than {MOST_TENSORS} tensors")
                    for name in tensors.keys():  # noqa: SIM118 - not a mapping
                        tensor = tensors.get_tensor(name).contiguous()
                        described = f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
                        content = tensor.reshape(-1).view(torch.uint8).numpy()
                        found[name] = hashlib.sha256(described + b"\0" + content.data).digest()
                        self.parameters += tensor.numel()
                        self.dtype = str(tensor.dtype).removeprefix("torch.")
            except (SafetensorError, OSError, RuntimeError) as error:  # the last is torch's
                reason = " ".join(str(error).split())[:300]
                raise InputError(f"base model {file}: {reason}") from None
        self.digests = [found[name] for name in sorted(found)]


def _canonical(file: Path) -> bytes:
    """Return the SHA-256 of a JSON file's fields, without those that say nothing, in one order."""
    text = json.dumps(_telling(read_json(file)), sort_keys=True)
    return hashlib.sha256(text.encode()).digest()


def _telling(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _telling(field) for name, field in value.items() if name not in _SAYS_NOTHING}
    return [_telling(item) for item in value] if isinstance(value, list) else value
