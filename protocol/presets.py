"""The presets that ship."""

from importlib import resources
from pathlib import Path
from typing import Any

from fedperfit.protocol.settings.names import nearest
from fedperfit.protocol.system.errors import InputError, MalformedFileError, MissingFileError
from fedperfit.protocol.system.files import toml_values


def read_preset(preset: str) -> dict[str, Any]:
    """The values of a preset by key.

    Args:
        preset: The name of one that ships, or a `.toml` file.

    Raises:
        InputError: There is no such preset or file, or it is not TOML.
    """
    try:
        return toml_values(preset_text(preset))
    except MalformedFileError as error:
        raise InputError(f"{preset}: {error}") from None


def preset_text(preset: str) -> str:
    """A preset's file as it is.

    Args:
        preset: The name of one that ships, or a `.toml` file.

    Raises:
        InputError: There is no such preset or file, or it is not text.
    """
    path = Path(preset)
    if path.suffix != ".toml":
        names = preset_names()
        if preset not in names:
            raise InputError(
                f"unknown preset {preset!r}: expected a .toml file or one of {', '.join(names)}; "
                f"the nearest is {nearest(preset, names)}"
            )
        path = Path(str(resources.files("fedperfit.configs") / f"{preset}.toml"))
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {error}") from None


def preset_names() -> list[str]:
    """The presets that ship."""
    return sorted(
        Path(entry.name).stem
        for entry in resources.files("fedperfit.configs").iterdir()
        if ".toml" in entry.name
    )
