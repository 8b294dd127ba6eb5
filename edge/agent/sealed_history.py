"""Moves a person's history into their vault, so that nothing of it need lie in clear."""

from pathlib import Path
from typing import Any

from fedperfit.edge.agent.history import FILES, SEALED, changing, files_to_seal, read_history
from fedperfit.edge.vault.vault import Vault
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.files import write_json
from fedperfit.protocol.tasks.conversations import Cut, whole


def seal_history(folder: Path, vault: Vault, cut: Cut = whole) -> list[Path]:
    """Import the history of a new folder, once; the next call makes good for a kill in between.

    Args:
        folder: the person's own folder, as `settle` made it.
        vault: its vault.
        cut: leaves out what comes too long before a turn of a conversation.

    Returns:
        Files that were read and stay where they are; none where there was nothing to do.

    Raises:
        InputError: a file is missing or malformed, or another process uses the vault.
    """
    about = read_form(folder / "client.json", dict[str, Any])
    if about.get(SEALED) is not False:
        return []
    files, history = files_to_seal(folder), read_history(folder, cut)
    vault.import_history(
        {"items": history.items, "answered": history.answered, "questions": history.questions}
    )
    with changing(folder):  # the owner may have changed what it says meanwhile
        about = read_form(folder / "client.json", dict[str, Any])
        others = {field: value for field, value in about.items() if field not in FILES}
        write_json(folder / "client.json", {**others, SEALED: True})
    return files
