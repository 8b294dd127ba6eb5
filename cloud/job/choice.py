"""What a run chose for the settings that are `auto`, in a file of its folder, once."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fedperfit.cloud.job.settings import SELECTION, Choice, JobSettings
from fedperfit.protocol.model.base_model import BaseModelCard
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.shift.selection import LayerGradient, relevance
from fedperfit.protocol.system.files import write_json


def run_choice(
    settings: JobSettings,
    card: BaseModelCard,
    folder: Path,
    gradients: Callable[[], Sequence[LayerGradient]],
) -> Choice:
    """Choose by layer gradients, or read what was chosen before.

    Args:
        settings: Settings of the run, some of them `auto`.
        card: Description of the base model.
        folder: Folder of the run.
        gradients: Gathers the clients' layer gradients.

    Returns:
        What was chosen, now or before.

    Raises:
        TooFewClients: If too few clients send theirs.
        InputError: If the file of the choice is of another form.
    """
    path = folder / SELECTION
    if not path.exists():
        started = time.monotonic()
        layer_gradients = gradients()
        choice = {
            "settings": settings.choose(layer_gradients, card),
            "relevance": relevance(layer_gradients).tolist(),
            "clients": len(layer_gradients),
            "seconds": time.monotonic() - started,
        }
        write_json(path, choice)
    return read_form(path, Choice)
