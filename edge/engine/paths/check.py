"""Whether the fast path gives the plain path's logits with a model, checked once and remembered.

Most architectures keep what the fast path relies on: layers that may be skipped, keys and values that may be
reused, masks that may be given. Where one does not, the plain path is taken and a line says so; where even
that cannot be right, an error names the reason.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch

from fedperfit.edge.engine.paths.comparing import (
    check_plain,
    label_difference,
    text_difference,
    training_difference,
)
from fedperfit.edge.engine.paths.path import Path, Paths
from fedperfit.edge.engine.paths.probe import Probe, probe_of
from fedperfit.edge.engine.paths.remembered import Remembered
from fedperfit.protocol.model.base_model import BaseModel, load
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.system.errors import InputError

logger = logging.getLogger("fedperfit.edge")

_TOLERANCE = 3e-4
"""Greatest difference in fp32, as a part of the largest logit, or of 1 where that is smaller; longer rows
then stay within 1e-3."""
_ROUNDINGS = 16
"""Greatest difference in narrower types, in units of their precision: 12 % in bf16, 1.6 % in fp16. Rounding
alone makes 3.5 % of SmolLM2's largest logit in bf16. What differs by less than that is found in fp32 only."""
_checked: WeakKeyDictionary[Any, dict[tuple[object, ...], Paths]] = WeakKeyDictionary()


@torch.no_grad()
def checked(base: BaseModel, layers: Sequence[int], positions: Positions | None) -> Paths:
    """The paths that are right for a model with shifts at given places.

    Args:
        base: the frozen model.
        layers: decoder layers that are shifted.
        positions: shifted tokens of each prompt; None without shifts.

    Raises:
        InputError: shifts cannot act in the model as they should.
    """
    where = (tuple(layers), str(positions))
    known = _checked.setdefault(base.model, {})
    if where not in known:
        remembered = Remembered.of(base, where)
        paths = remembered.read()
        if paths is None:
            paths = _check(base, layers, positions or Positions(0, 1))
            remembered.write(paths)
        if paths.told:
            logger.warning("%s: %s", base.kind, paths.told)
        known[where] = paths
    return known[where]


def load_checked(name: str, *, device: str, dtype: str) -> BaseModel:
    """Load a base model, and check that it can be asked.

    Args:
        name: as `load` takes it.
        device: as `load` takes it.
        dtype: as `load` takes it.

    Raises:
        InputError: it cannot be loaded, or what it answers is no number.
    """
    base = load(name, device=device, dtype=dtype)
    checked(base, [], None)
    return base


def _check(base: BaseModel, layers: Sequence[int], positions: Positions) -> Paths:
    name = base.kind
    try:
        probe = probe_of(base, layers, positions)
        check_plain(base, probe)
    except Exception as error:  # a strange model raises anything
        raise InputError(f"{name}: {_reason(error).removeprefix(f'{name}: ')}") from None
    works: dict[str, Mapping[Path, Callable[[BaseModel, Probe], float]]] = {
        "training": {Path.FAST: training_difference} if layers else {},
        "scoring labels": {Path.FAST: label_difference},
        "text": {path: partial(text_difference, path=path) for path in Path},
    }
    found = {work: _first(base, probe, paths) for work, paths in works.items()}
    text, reason = found["text"]
    if text is None:
        raise InputError(f"{name}: no way of generating text agrees with whole rows ({reason})")
    told = [f"{work} takes the plain path, row by row ({why})" for work, (_, why) in found.items() if why]
    training = found["training"][0] or (Path.BARE if layers else Path.FAST)
    return Paths(training, found["scoring labels"][0] or Path.BARE, text, "; ".join(told))


def _first(
    base: BaseModel, probe: Probe, paths: Mapping[Path, Callable[[BaseModel, Probe], float]]
) -> tuple[Path | None, str]:
    """The first path that agrees with the plain one, None if none does; and why the very first does not."""
    tolerance = max(_TOLERANCE, _ROUNDINGS * torch.finfo(base.model.dtype).eps)
    reason = ""
    for path, difference in paths.items():
        try:
            gap = difference(base, probe)
        except Exception as error:  # a strange model raises anything
            reason = reason or _reason(error)
            continue
        if gap <= tolerance:
            return path, reason
        reason = reason or f"logits differ by {gap:.1g}"
    return None, reason


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return (
        f"{type(error).__name__} {text}".strip()
        if isinstance(error, LookupError)
        else text or type(error).__name__
    )
