"""What a message between cloud and edge weighs: its bytes, those of each tensor, and Flower's on top."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from flwr.app import ArrayRecord, ConfigRecord, Message

from fedperfit.protocol.messages import keys
from fedperfit.protocol.shift.packing import MAGIC, slab_sizes
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.flower_internals import message_bytes

NAMES = {
    keys.SHIFT_KEY: "coordinates",
    **{
        key: key
        for key in (
            *(keys.BASIS_KEY, keys.UPDATE_KEY, keys.SUM_KEY, keys.ENVELOPES_KEY),
            *(keys.MOMENTS_KEY, keys.PROBES_KEY, keys.VIEW_KEY, keys.SUMS_KEY),
        )
    },
    keys.LAYER_GRADIENT_KEY: "layer gradients",
}
"""What the values of messages are called, by their keys; a client's own words stay out of the ledger."""
OTHER = "other"


class Sizes(NamedTuple):
    """Bytes of one message."""

    payload: int
    """Bytes of the arrays and statistics in it."""
    message: int
    """Bytes of the whole message as protobuf: payload, other records, Flower's metadata."""
    tensors: Mapping[str, int]
    """What the payload is made of: names and bytes."""


def measure(message: Message) -> Sizes:
    """Weigh a message, however malformed.

    Args:
        message: One that is to be sent, or that came.
    """
    parts: dict[str, int] = defaultdict(int)
    for name, size in _parts(message):
        parts[name] += size
    tensors = _shared(tuple(sorted(parts.items())))
    payload = sum(parts.values())
    try:
        return Sizes(payload, message_bytes(message), tensors)
    except (ValueError, TypeError):
        return Sizes(payload, payload, tensors)


def _parts(message: Message) -> Iterator[tuple[str, int]]:
    """Yield names and bytes of what the payload is made of."""
    for record in message.content.values() if message.has_content() else ():
        if isinstance(record, ArrayRecord):
            for array in record.values():
                yield from _named(array.data, OTHER)
        elif isinstance(record, ConfigRecord):
            for key, value in record.items():
                for data in value if isinstance(value, list) else [value]:
                    if isinstance(data, bytes):
                        yield from _named(data, NAMES.get(key, OTHER))


def _named(data: bytes, name: str) -> Iterable[tuple[str, int]]:
    """Return the tensors of a packed shift; anything else is one thing of a name."""
    try:
        return slab_sizes(data).items() if data.startswith(MAGIC) else [(name, len(data))]
    except InputError:
        return [(OTHER, len(data))]


@lru_cache(maxsize=1024)
def _shared(parts: tuple[tuple[str, int], ...]) -> Mapping[str, int]:
    """Return equal parts as one object: a round has thousands of them."""
    return dict(parts)
