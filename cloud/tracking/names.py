"""Names of the trackers, and the option `--track` of every command that takes long."""

import os
from enum import StrEnum
from importlib import import_module
from typing import Annotated

import typer

from fedperfit.protocol.system.errors import InputError, line_of

_SENDS_NOTHING = {"WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
"""Variables by which the libraries tell their makers nothing of their use, unless a user has set them."""


class TrackerName(StrEnum):
    """Trackers by the name of their library."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"
    TRACKIO = "trackio"


def check_installed(names: list[TrackerName] | None) -> list[TrackerName]:
    """Return the trackers, each once.

    Raises:
        InputError: The library of one cannot be imported; the message says what to install.
    """
    trackers = list(dict.fromkeys(names or []))
    if trackers:
        os.environ.update(_SENDS_NOTHING | os.environ)
    for name in trackers:
        try:
            import_module(name)
        except Exception as error:  # beside an ImportError, what libraries raise that do not fit together
            raise InputError(
                f"--track {name}: {name} cannot be imported ({line_of(str(error))}): "
                f"pip install 'fedperfit[{name}]'"
            ) from None
    return trackers


Track = Annotated[
    list[TrackerName] | None,
    typer.Option(
        callback=check_installed,
        help="Follow it in this tracker too, on this machine; more than once for several.",
    ),
]
"""Option of a command whose events trackers can follow."""
