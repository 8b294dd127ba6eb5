"""What a run chose for the settings that are `auto`, in a file of its folder, once."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedperfit.cloud.job.settings import SELECTION, JobSettings
from fedperfit.protocol.model.base_model import BaseModelCard
from fedperfit.protocol.shift.selection import LayerGradient, relevance
from fedperfit.protocol.system.files import read_json, write_json


def run_choice(
    settings: JobSettings,
    card: BaseModelCard,
    folder: Path,
    gradients: Callable[[], Sequence[LayerGradient]],
) -> dict[str, Any]:
    """Choose by layer gradients, or read what was chosen before.

    Args:
        settings: Settings of the run, some of them `auto`.
        card: Description of the base model.
        folder: Folder of the run.
        gradients: Gathers the clients' layer gradients.

    Returns:
        As JSON values, the chosen settings by key, the layers' relevance, the number of clients that were
        asked, and how long it took, in seconds.

    Raises:
        TooFewClients: If too few clients send theirs.
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
    chosen: dict[str, Any] = read_json(path)
    return chosen
