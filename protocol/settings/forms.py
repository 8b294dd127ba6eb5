"""JSON files with a form that is written down as a type: `dict[str, int]`, a dataclass, a TypedDict.

A TypedDict comes from `typing_extensions`, as pydantic asks of Python 3.11; its unknown keys are left out.
"""

from collections.abc import Hashable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from fedperfit.protocol.system.errors import MalformedFileError
from fedperfit.protocol.system.files import json_lines, read_json

Form = TypeVar("Form")


def in_form(value: Any, form: type[Form], place: str) -> Form:
    """Return a value that JSON held, as its form has it.

    Args:
        value: The value.
        form: The type it must have.
        place: File, and perhaps line, that it came from.

    Raises:
        MalformedFileError: It has another form; the message names the place, and quotes no value.
    """
    try:
        return cast(Form, _adapter(cast(Hashable, form)).validate_python(value))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        inside = ["/".join(map(str, first["loc"]))] if first["loc"] else []
        words = first["msg"][:1].lower() + first["msg"][1:]
        raise MalformedFileError(": ".join([place, *inside, words])) from None


def read_form(path: Path, form: type[Form]) -> Form:
    """Read the JSON value in `path`, which must have a form.

    Raises:
        InputError: The file is missing, may not be read, is not JSON, or has another form.
    """
    return in_form(read_json(path), form, str(path))


def read_form_lines(path: Path, form: type[Form]) -> list[Form]:
    """Read one JSON value per line of `path`, each of which must have a form. Raises as `read_form` does."""
    values = []
    for number, value in json_lines(path):
        place = f"{path}, line {number}"
        if isinstance(value, MalformedFileError):
            raise MalformedFileError(f"{place}: {value}")
        values.append(in_form(value, form, place))
    return values


@lru_cache(maxsize=64)
def _adapter(form: Any) -> TypeAdapter[Any]:
    return TypeAdapter(form)
