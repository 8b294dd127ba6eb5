"""Scans each reply of a simulation's clients for the numbers of their personal shifts."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from flwr.app import Message

from fedperfit.edge.vault.traces import Traces
from fedperfit.edge.vault.vault import VAULT, Vault
from fedperfit.protocol.messages.keys import SETTINGS_RECORD
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_json
from fedperfit.protocol.system.flower_internals import message_to_bytes

FILE = "scan.json"
"""File in a client's folder with what its replies were found to hold."""


class Scan(NamedTuple):
    """What replies were found to hold."""

    replies: int = 0
    """Number of replies of clients that had a personal shift by then."""
    bytes: int = 0
    """Size of these replies as protobuf, in bytes."""
    personal: int = 0
    """Bytes in them that are numbers of the client's personal shifts; see `edge.vault.traces`."""


def scan(folder: Path, request: Message, reply: Message) -> None:
    """Add a reply to the client's count; of a request that names a slot, that slot's shift is looked for.

    A shift that cannot be opened, which the reply is an error about, has no numbers to be looked for.

    Args:
        folder: The client's own folder.
        request: What was asked.
        reply: What is about to be sent.
    """
    vault = Vault(folder / VAULT)
    kept, settings = vault.slots(), request.content.config_records.get(SETTINGS_RECORD)
    named = settings.get("slot") if settings else None
    slots = [named] if named in kept else kept
    if not slots:
        return
    try:
        traces = Traces.of(vault, map(str, slots))
    except InputError:
        return
    data = message_to_bytes(reply)
    found = traces.bytes_in(data, known=message_to_bytes(request))
    one, before = Scan(1, len(data), found), _read(folder)
    write_json(folder / FILE, Scan(*map(sum, zip(before, one, strict=True)))._asdict())


def total(clients: Iterable[Path]) -> Scan:
    """Sum up the counts of clients.

    Args:
        clients: Their folders.
    """
    return Scan(*map(sum, zip(Scan(), *map(_read, clients), strict=True)))


def _read(folder: Path) -> Scan:
    path = folder / FILE
    return read_form(path, Scan) if path.exists() else Scan()
