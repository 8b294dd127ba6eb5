"""Records of a run that wandb keeps for a later `wandb sync`: LevelDB's log format, wandb's own messages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FILE_HEADER, _HEADER, _BLOCK = 7, 7, 32 * 1024
_WHOLE, _LAST = 1, 4


def records(path: Path) -> Iterator[Any]:
    """Yield the records of a `.wandb` file."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = path.read_bytes(), _FILE_HEADER, b""
    while place + _HEADER <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _HEADER:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        parts += data[place + _HEADER : place + _HEADER + length]
        place += _HEADER + length
        if kind in (_WHOLE, _LAST):
            yield Record.FromString(parts)
            parts = b""
