"""What a group of settings holds, for people: key, meaning, values, unit, default."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedperfit.protocol.settings.names import key_of
from fedperfit.protocol.settings.rules import choices_of, numbers, rule, unit


@dataclass(frozen=True)
class Setting:
    """One setting, read off its declaration."""

    key: str
    meaning: str
    """What the setting means, in one line."""
    values: str
    """Allowed values, in words."""
    unit: str
    """Unit of a number, form of a text; `choice` or `switch` for the rest."""
    required: bool
    """Whether there is no default."""
    default: Any
    """Value, as JSON has it, when nothing else is given; None where it is required or follows from others."""
    bounds: tuple[tuple[str, ...], ...]
    """Names of the bounds of every number inside, e.g. `(("ge",),)`."""


def described(model: type[BaseModel]) -> list[Setting]:
    """Every setting of a group, in the order of declaration."""
    return [_setting(key_of(name), field) for name, field in model.model_fields.items()]


def own_settings(model: type[BaseModel]) -> Iterator[Setting]:
    """The settings that a group adds to those it inherits or whose default it changes."""
    bases = [base for base in model.__bases__ if issubclass(base, BaseModel)]
    inherited = [setting for base in bases for setting in described(base)]
    return (setting for setting in described(model) if setting not in inherited)


def _setting(key: str, field: FieldInfo) -> Setting:
    annotation, metadata = field.annotation, field.metadata
    required = field.is_required()
    computed = field.default_factory is not None
    default = None if required or computed else field.get_default()
    kind = "switch" if annotation is bool else "choice" if choices_of(annotation) else ""
    return Setting(
        key=key,
        meaning=" ".join((field.description or "").split()),
        values=rule(annotation, metadata),
        unit=unit(annotation, metadata) or kind,
        required=required,
        default=default.value if isinstance(default, Enum) else default,
        bounds=tuple(tuple(limits) for limits in numbers(annotation, metadata)),
    )
