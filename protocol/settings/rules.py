"""What a setting may hold, in words: read off the type and the bounds that pydantic checks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Unit:
    """Unit of a number, or form of a text; stands beside the type of a setting."""

    name: str


class Repeatable:
    """Mark of a list whose entries may repeat; those of all others stand once each."""


_BOUNDS = (
    ("ge", "of at least"),
    ("gt", "above"),
    ("le", "at most"),
    ("lt", "below"),
)
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", NoneType: "nothing"}


def rule(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """What values are allowed, e.g. `a whole number of at least 1 or auto`.

    Args:
        annotation: The type, e.g. `list[Annotated[int, Field(ge=0)]]`.
        metadata: What stands beside it: bounds, units.
    """
    inner, beside = _unwrapped(annotation, metadata)
    choices = _choices(inner)
    if choices:
        return " or ".join(choices) if len(choices) < 3 else f"one of {', '.join(choices)}"
    if get_origin(inner) is list:
        least = " of at least one" if "min_length" in _limits(beside) else ""
        return f"a list{least}, each {rule(get_args(inner)[0])}"
    if get_origin(inner) in (Union, UnionType):
        return " or ".join(rule(part) for part in get_args(inner))
    if any(getattr(mark, "pattern", None) for mark in beside):
        return unit(inner, beside)
    limits = _limits(beside)
    words = [f"{word} {limits[name]}" for name, word in _BOUNDS if name in limits]
    return f"{_NAMES[inner]} {' and '.join(words)}".strip()


def choices_of(annotation: Any) -> list[str]:
    """Every word that the type allows, those inside unions and lists included."""
    inner, _ = _unwrapped(annotation)
    parts = get_args(inner) if get_origin(inner) in (Union, UnionType, list) else ()
    return _choices(inner) + [word for part in parts for word in choices_of(part)]


def unit(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """The unit of the numbers or the form of the texts that are allowed; empty where none is stated."""
    inner, beside = _unwrapped(annotation, metadata)
    named = [mark.name for mark in beside if isinstance(mark, Unit)]
    parts = get_args(inner) if get_origin(inner) in (Union, UnionType, list) else ()
    return next(iter(named + [found for part in parts if (found := unit(part))]), "")


def numbers(annotation: Any, metadata: Iterable[Any] = ()) -> Iterator[dict[str, Any]]:
    """The bounds of every number inside a type, e.g. `{"ge": 1}`; an empty mapping where it has none."""
    inner, beside = _unwrapped(annotation, metadata)
    if inner in (int, float):
        yield _limits(beside)
    if get_origin(inner) in (Union, UnionType, list):
        for part in get_args(inner):
            yield from numbers(part)


def _unwrapped(annotation: Any, metadata: Iterable[Any] = ()) -> tuple[Any, list[Any]]:
    """A type without `Annotated`, and all that stands beside it."""
    beside = list(metadata)
    while get_origin(annotation) is Annotated:
        annotation, *inner = get_args(annotation)
        beside += inner
    flat = [mark for part in beside for mark in (part.metadata if isinstance(part, FieldInfo) else [part])]
    return annotation, flat


def _limits(beside: Iterable[Any]) -> dict[str, Any]:
    names = [name for name, _ in _BOUNDS] + ["min_length"]
    return {name: getattr(mark, name) for mark in beside for name in names if hasattr(mark, name)}


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(member.value) for member in annotation]
    return []
