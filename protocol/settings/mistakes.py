"""A mistake in the settings as one line: the key, the value, the rule, and the nearest name."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fedperfit.protocol.settings.names import key_of, nearest
from fedperfit.protocol.settings.rules import choices_of, rule
from fedperfit.protocol.system.errors import InputError, SettingError

_MOST = 80
"""Characters of a wrong value that are shown."""


def unknown_setting(key: str, keys: Iterable[str]) -> SettingError:
    """The error that tells of a setting that is not there, and of the one that was probably meant."""
    near = nearest(key_of(key), keys)
    return SettingError(f"unknown setting {key!r}: the nearest is {near!r}; `fedperfit settings` lists all")


def explained(model: type[BaseModel], values: Mapping[str, Any], error: ValidationError) -> SettingError:
    """The first thing wrong with `values`, told in one line.

    Args:
        model: The group of settings that refused them.
        values: What it was given, by field name or key.
        error: Why it refused.
    """
    details = error.errors()
    fields = {key_of(name): field for name, field in model.model_fields.items()}
    for detail in details:
        if detail["type"] == "extra_forbidden":
            return unknown_setting(str(detail["loc"][0]), fields)
    missing = [_key(detail) for detail in details if detail["type"] == "missing"]
    if missing:
        return SettingError(f"settings lack {', '.join(map(repr, missing))}")
    told = details[0].get("ctx", {}).get("error")
    if isinstance(told, InputError):
        return SettingError(str(told))
    key = _key(details[0])
    field, value = fields[key], values.get(key, values.get(key.replace("-", "_")))
    choices = choices_of(field.annotation)
    near = f"; the nearest is {nearest(value, choices)}" if isinstance(value, str) and choices else ""
    return SettingError(f"{key}={_shown(value)}: expected {rule(field.annotation, field.metadata)}{near}")


def _key(detail: ErrorDetails) -> str:
    return key_of(str(detail["loc"][0]))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST else f"{text[:_MOST]}…"
