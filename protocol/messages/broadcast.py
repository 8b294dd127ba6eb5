"""Reads what a request broadcasts, from whichever record it is in."""

from flwr.app import Message

from fedperfit.protocol.messages.keys import SETTINGS_RECORD, SHIFT_KEY, SHIFT_RECORD
from fedperfit.protocol.system.errors import InputError


def broadcast(request: Message) -> bytes:
    """Return the packed shift, coordinates or release that a request carries.

    Raises:
        InputError: What it carries is not bytes.
        KeyError: It carries nothing.
    """
    settings = request.content.config_records[SETTINGS_RECORD]
    if SHIFT_KEY in settings:
        data = settings[SHIFT_KEY]
    else:
        data = request.content.array_records[SHIFT_RECORD][SHIFT_KEY].data
    if not isinstance(data, bytes):
        raise InputError(f"{SHIFT_KEY} is not bytes")
    return data
