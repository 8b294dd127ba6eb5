"""Source files compile without a warning; later versions of Python than the gate's turn some into errors."""

import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("cloud", "configs", "edge", "examples", "protocol", "simulation", "tests", "tools")


@pytest.mark.parametrize("room", ROOMS)
def test_sources_compile_without_a_warning(room: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SyntaxWarning)
        warnings.simplefilter("error", DeprecationWarning)  # what Python 3.11 calls an invalid escape
        for path in (ROOT / room).rglob("*.py"):
            compile(path.read_text(encoding="utf-8"), str(path), "exec")
