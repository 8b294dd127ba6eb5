"""The libraries we are compared with; nothing else needs them."""

from importlib import import_module
from typing import Any

from fedperfit.protocol.system.errors import InputError

_EXTRA = "pip install -c constraints.txt -e '.[benchmark]'"
COMMANDS = {
    "peft": _EXTRA,
    "accelerate": _EXTRA,
    "pyreft": "pip install --no-deps pyreft==0.1.0 pyvene==0.1.8",
}
"""pyreft and pyvene pin a transformers of their time, so they go in without their dependencies."""


def required(library: str) -> Any:
    """The module of `library`; raises InputError with the command that installs it."""
    try:
        return import_module(library)
    except ImportError as error:
        raise InputError(f"{library} cannot be imported ({error}): {COMMANDS[library]}") from None
