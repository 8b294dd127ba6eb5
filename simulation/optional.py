"""Libraries that only some commands need, imported where they are needed."""

from importlib import import_module
from typing import Any

from fedperfit.protocol.system.errors import InputError, line_of

_EXTRA = "pip install -c constraints.txt -e '.[benchmark]'"
COMMANDS = {
    "peft": _EXTRA,
    "accelerate": _EXTRA,
    "ray": "pip install -c constraints.txt 'flwr[simulation]'",
    "pyreft": "pip install --no-deps pyreft==0.1.0 pyvene==0.1.8",
}
"""Command that installs each library.

pyreft and pyvene pin an old transformers, so they are installed without their dependencies.
"""


def required(library: str) -> Any:
    """Import `library`.

    Raises:
        InputError: It cannot be imported; the message has the command that installs it.
    """
    try:
        return import_module(library)
    except Exception as error:  # beside an ImportError, what libraries raise that do not fit together
        reason = line_of(str(error))
        raise InputError(f"{library} cannot be imported ({reason}): {COMMANDS[library]}") from None
