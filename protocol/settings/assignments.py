"""Settings given on a command line: `key=value`, with the same spelling in every command."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from fedperfit.protocol.settings.base import Settings
from fedperfit.protocol.settings.mistakes import unknown_setting
from fedperfit.protocol.settings.names import key_of
from fedperfit.protocol.settings.rules import choices_of
from fedperfit.protocol.system.errors import MalformedFileError, SettingError
from fedperfit.protocol.system.files import toml_values

NOTHING = "none"
"""Word for an empty list."""
_BARE_POINT = re.compile(r"[+-]?([0-9]+\.|\.[0-9]+)([eE][+-]?[0-9]+)?")
"""Numbers as people type them, with no digit before or after the point, which TOML does not read."""


def parse_assignments(group: type[Settings], assignments: Iterable[str] | None) -> dict[str, Any]:
    """Values by key from `key=value` texts.

    Raises:
        SettingError: A text has another form, or names a setting that the group does not have.
    """
    values = {}
    for assignment in assignments or []:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise SettingError(f"{assignment!r}: expected key=value")
        values[key] = parse_value(group, key, text)
    return values


def parse_options(group: type[Settings], options: Mapping[str, Any]) -> dict[str, Any]:
    """Values by key from a command's own options, those left out excepted.

    Args:
        group: The settings they belong to.
        options: By field name; texts are read as `parse_value` reads them, None is left out.
    """
    return {
        key_of(name): parse_value(group, name, value) if isinstance(value, str) else value
        for name, value in options.items()
        if value is not None
    }


def parse_value(group: type[Settings], key: str, text: str) -> Any:
    """One value, as TOML; a bare word is a text, and lists may be words between commas, or `none`.

    Raises:
        SettingError: The group has no such setting.
    """
    fields = {key_of(name): field for name, field in group.model_fields.items()}
    if key_of(key) not in fields:
        raise unknown_setting(key, fields)
    field, value = fields[key_of(key)], _toml(text)
    if field.annotation is str:
        return value if isinstance(value, str) else text
    if not _holds_list(field) or isinstance(value, list) or value in choices_of(field.annotation):
        return value
    return [] if text == NOTHING else [_toml(word.strip()) for word in text.split(",") if word.strip()]


def _toml(text: str) -> Any:
    try:
        return toml_values(f"value = {text}")["value"]
    except MalformedFileError:
        return float(text) if _BARE_POINT.fullmatch(text) else text


def _holds_list(field: FieldInfo) -> bool:
    parts = (field.annotation, *get_args(field.annotation))
    return any(get_origin(part) is list for part in parts)
