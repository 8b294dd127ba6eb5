"""A collective shift as pyreft 0.1.0 (Wu et al., 2024) saves one, to the bit, and back.

Its LoReFT is h + R^T (W h + b - R h): `rotate_layer` is our R transposed, `weight` our W, `bias` our b. One
file per layer, and `config.json` of pyvene 0.1.8; neither library is needed here. What pyreft does not know,
the positions, the task and the base model, stands beside it in `fedperfit.json`. (`ReftModel.load` rounds
every file to bf16; interventions made with `dtype=torch.float32` keep all digits by `load_state_dict`.)
"""

import pickle
import re
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from typing_extensions import TypedDict

from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError, MissingFileError
from fedperfit.protocol.system.files import read_json, whole_folder, write_atomic, write_json

ABOUT = "fedperfit.json"
CONFIG = "config.json"
_KEY = "layer_{}_comp_block_output_unit_pos_nunit_1#0"
_FILE = re.compile(r"intkey_layer_(\d+)_comp_block_output_unit_pos_nunit_1#0\.bin")
_TYPE = "<class 'pyreft.interventions.LoreftIntervention'>"
_ORTHONORMAL = 1e-3
"""Largest error of R R^T that an imported R may have."""


def write_pyreft(folder: Path, shift: Shift, header: ShiftHeader) -> None:
    """Write a shift as `ReftModel.load` reads it.

    Args:
        folder: New folder.
        shift: The collective shift.
        header: Its task, base model and number of rounds.

    Raises:
        InputError: The folder exists or cannot be made, or the shift is a personal one.
        OSError: A file of it cannot be written; nothing is left.
    """
    if type(shift) is not Shift:
        raise InputError("only a collective shift can be exported to pyreft")
    shape = shift.shape
    about = {
        "task": header.task,
        "fingerprint": header.fingerprint,
        "positions": str(shape.positions),
        "rounds": header.round,
    }
    with whole_folder(folder) as place:
        for index, layer in enumerate(shape.layers):
            R, W, b = (tensor.detach()[index].float().cpu() for tensor in (shift.R, shift.W, shift.b))
            state = {"weight": W.clone(), "bias": b.clone(), "rotate_layer": R.T.contiguous()}
            content = BytesIO()  # torch.save itself tells a full disk as an error of its own
            torch.save(state, content)
            write_atomic(place / f"intkey_{_KEY.format(layer)}.bin", content.getvalue())
        write_json(place / CONFIG, _config(shape))
        write_json(place / ABOUT, about)


def _config(shape: ShiftShape) -> dict[str, Any]:
    """Return pyvene's configuration of an intervention on the output of each layer."""
    layers = shape.layers
    representation = ["block_output", "pos", 1, shape.rank, *[None] * 9]
    return {
        "intervention_constant_sources": [True] * len(layers),
        "intervention_dimensions": [shape.hidden_size] * len(layers),
        "intervention_types": [_TYPE] * len(layers),
        "mode": "parallel",
        "representations": [[layer, *representation] for layer in layers],
        "sorted_keys": [_KEY.format(layer) for layer in layers],
    }


class _About(TypedDict, total=False):
    task: str
    fingerprint: str
    positions: str
    rounds: Annotated[int, Field(ge=0)]


def read_pyreft(
    folder: Path, *, task: str = "", fingerprint: str = "", positions: str = ""
) -> tuple[Shift, ShiftHeader]:
    """Read LoReFT interventions on the outputs of layers.

    Args:
        folder: Folder that pyreft or `write_pyreft` wrote.
        task: Task that they were trained for, where `fedperfit.json` is not there to say it.
        fingerprint: Fingerprint of the base model, likewise.
        positions: Shifted tokens of each prompt, likewise.

    Raises:
        InputError: A file is missing or malformed, there are other interventions in it, or it was written for
            another base model than the one given.
    """
    about = read_form(folder / ABOUT, _About) if (folder / ABOUT).is_file() else _About()
    if fingerprint and about.get("fingerprint", fingerprint) != fingerprint:
        raise InputError(f"{folder}: trained for another base model, by the fingerprint in {ABOUT}")
    given = {"task": task, "fingerprint": fingerprint, "positions": positions}
    said = {**about, **{name: value for name, value in given.items() if value}}
    lacking = [name for name in given if not said.get(name)]
    if lacking:
        raise InputError(f"{folder}: pyreft does not say {', '.join(lacking)}; give them")
    states = {layer: _state(file) for layer, file in sorted(_files(folder).items())}
    shapes = {state["weight"].shape for state in states.values()}
    if len(shapes) != 1:
        raise InputError(f"{folder}: the layers' ranks differ: {sorted(shapes)}")
    ((rank, size),) = shapes
    shape = ShiftShape(tuple(states), rank, size, Positions.parse(str(said["positions"])))
    R = torch.stack([state["rotate_layer"].T for state in states.values()]).contiguous()
    error = (R @ R.mT - torch.eye(rank)).abs().max()
    if not error <= _ORTHONORMAL:
        raise InputError(f"{folder}: a rotation is not orthonormal, by {float(error):.2g}")
    W, b = (torch.stack([state[name] for state in states.values()]) for name in ("weight", "bias"))
    rounds = about.get("rounds", 0)
    header = ShiftHeader(shape, str(said["task"]), str(said["fingerprint"]), rounds)
    return Shift(shape, R=R, W=W, b=b), header


def _files(folder: Path) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for file in sorted(folder.glob("intkey_*.bin")):
        name = _FILE.fullmatch(file.name)
        if name is None:
            raise InputError(f"{file}: not an intervention on a layer's output")
        found[int(name[1])] = file
    if not found:
        raise MissingFileError(f"{folder}: no interventions of pyreft")
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    keys = config.get("sorted_keys") if isinstance(config, dict) else None
    for key in keys if isinstance(keys, list) else []:
        if not (folder / f"intkey_{key}.bin").is_file():
            raise MissingFileError(f"{folder}: intkey_{key}.bin, which {CONFIG} names, is not there")
    return found


def _state(file: Path) -> dict[str, torch.Tensor]:
    """Read one intervention, in fp32; nothing of a pickle but tensors is read."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        stored = {name: state[name] for name in ("weight", "bias", "rotate_layer")}
        if any(not one.is_floating_point() or one.layout is not torch.strided for one in stored.values()):
            raise InputError(f"{file}: not LoReFT: a tensor is not of plain numbers")
        tensors = {name: tensor.float() for name, tensor in stored.items()}
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, RuntimeError, OSError, EOFError) as error:
        raise InputError(f"{file}: not LoReFT ({type(error).__name__})") from None
    except (pickle.UnpicklingError, zipfile.BadZipFile, ValueError) as error:
        raise InputError(f"{file}: not LoReFT ({type(error).__name__})") from None
    if any(
        tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes() for tensor in tensors.values()
    ):
        raise InputError(f"{file}: not LoReFT: its tensors are larger than what it stores")
    rank, size = tensors["weight"].shape if tensors["weight"].dim() == 2 else (0, 0)
    if tensors["bias"].shape != (rank,) or tensors["rotate_layer"].shape != (size, rank) or not rank:
        raise InputError(f"{file}: not LoReFT: its tensors do not fit each other")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise InputError(f"{file}: a number is not finite")
    return tensors
