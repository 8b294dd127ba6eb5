"""A broken file must be named in one line by what reads it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedperfit.protocol.system.errors import InputError


def check_named(folder: Path, file: str, read: Callable[[Path], Any], content: bytes) -> None:
    """Write a broken file into a folder; what reads the folder must say which one it is."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(path))) as error:
        read(folder)
    assert "\n" not in str(error.value)
