"""The base of every group of settings.

A field's type and bounds are checked when an instance is made; the line below it is its meaning, which
`fedperfit settings` prints. In files and on the command line its key has hyphens for underscores.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from fedperfit.protocol.settings.mistakes import explained
from fedperfit.protocol.settings.names import key_of
from fedperfit.protocol.settings.rules import Repeatable
from fedperfit.protocol.system.errors import InputError, SettingError, line_of
from fedperfit.protocol.system.files import read_json


class Settings(BaseModel):
    """Values that are checked once and never change. Raises SettingError, one line, for any that is wrong."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        alias_generator=key_of,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
        defer_build=True,
    )

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise explained(type(self), values, error) from None

    @model_validator(mode="after")
    def _check_once(self) -> Self:
        for name, field in type(self).model_fields.items():
            values = getattr(self, name)
            repeatable = any(isinstance(mark, Repeatable) for mark in field.metadata)
            if isinstance(values, list) and not repeatable and len(set(values)) < len(values):
                raise InputError(f"{key_of(name)}={line_of(','.join(map(str, values)))}: each once")
        return self

    @classmethod
    def setting_keys(cls) -> list[str]:
        """The keys of all settings, in the order of their declaration."""
        return [key_of(name) for name in cls.model_fields]

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> Self:
        """Read values by key, as JSON and TOML hold them.

        Raises:
            InputError: These are no values by key.
            SettingError: A key is unknown or missing, or a value is not allowed.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"expected settings by key, found {type(values).__name__}")
        return cls(**values)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read values by key from a JSON file.

        Raises:
            InputError: Naming the file, which is missing, not JSON, or holds no such settings.
        """
        values = read_json(path)
        try:
            return cls.from_flat(values)
        except InputError as error:
            raise SettingError(f"{path}: {error}") from None

    @classmethod
    def from_some(cls, values: Mapping[str, Any]) -> Self:
        """Read the values of this group from among others, which are left alone.

        Raises:
            SettingError: A key is missing, or a value is not allowed.
        """
        return cls(**cls.own(values))

    @classmethod
    def own(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of this group by key, from among others."""
        return {key: values[key] for key in cls.setting_keys() if key in values}

    def to_flat(self) -> dict[str, Any]:
        """Values by key, as JSON and TOML hold them."""
        return self.model_dump(mode="json", by_alias=True)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked like any other.

        Raises:
            SettingError: A value is not allowed.
        """
        return type(self)(**(vars(self) | changes))
