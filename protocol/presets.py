"""The presets that ship, and values given on a command line."""

import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from fedperfit.protocol.system.errors import InputError


def read_preset(preset: str) -> dict[str, Any]:
    """The values of a preset, by the name of one that ships or by file."""
    path = Path(preset)
    if path.suffix != ".toml":
        names = preset_names()
        if preset not in names:
            raise InputError(f"unknown preset {preset!r}: expected a .toml file or one of {', '.join(names)}")
        path = Path(str(resources.files("fedperfit.configs") / f"{preset}.toml"))
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None


def preset_names() -> list[str]:
    """The presets that ship."""
    return sorted(
        Path(entry.name).stem
        for entry in resources.files("fedperfit.configs").iterdir()
        if ".toml" in entry.name
    )


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """`key=value` strings as TOML values; a bare word is a string. Raises InputError."""
    values = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise InputError(f"{assignment!r}: expected key=value")
        try:
            values[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key] = text
    return values
