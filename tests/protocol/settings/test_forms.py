from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired

import pytest
from typing_extensions import TypedDict

from fedperfit.protocol.settings.forms import in_form, read_form, read_form_lines
from fedperfit.protocol.system.errors import MalformedFileError
from fedperfit.protocol.system.files import write_json, write_json_lines


class Pet(TypedDict):
    name: str
    legs: NotRequired[int]


@dataclass
class Owner:
    name: str
    pets: list[Pet]


def test_values_come_as_their_form_has_them(tmp_path: Path):
    write_json(tmp_path / "owners.json", [{"name": "a", "pets": [{"name": "b", "tail": 1}]}])
    assert read_form(tmp_path / "owners.json", list[Owner]) == [Owner("a", [{"name": "b"}])]
    write_json_lines(tmp_path / "pets.jsonl", [{"name": "a", "legs": 4}, {"name": "b"}])
    assert read_form_lines(tmp_path / "pets.jsonl", Pet) == [{"name": "a", "legs": 4}, {"name": "b"}]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (["SECRET"], "x: input should be a valid dictionary"),
        ({"name": 5}, "x: name: input should be a valid string"),
        ({}, "x: name: field required"),
        ({"name": "a", "legs": "SECRET"}, "x: legs: input should be a valid integer, unable to parse"),
    ],
)
def test_another_form_is_told_in_one_line_that_quotes_no_value(value: Any, told: str):
    with pytest.raises(MalformedFileError) as error:
        in_form(value, Pet, "x")
    assert str(error.value).startswith(told)
    assert "SECRET" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("line", ['{"name": 5}', '{"na', "[1]"])
def test_a_line_of_another_form_is_told_by_its_number(tmp_path: Path, line: str):
    path = tmp_path / "pets.jsonl"
    path.write_text('{"name": "a"}\n\n' + line + "\n")
    with pytest.raises(MalformedFileError, match=r"pets\.jsonl, line 3: "):
        read_form_lines(path, Pet)
