"""JSON of any size, read a piece at a time."""

import json
import random
from pathlib import Path

import pytest

from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.data import json_stream
from fedperfit.simulation.data.json_stream import document, elements

PIECES = (
    *("\\ud83d", "\\uDE00", "\\udfff", "\\ud83d\\ude00", "\\u00e9", "\\u0041", "\\ufffd"),
    *("\\\\", '\\"', "\\n", "\\/", "ud83d", "é", "😀", "d83d", "u", " ", "z"),
)
"""What JSON texts are made of: escapes, whole and half characters, and what looks like them."""


def whole(text: str) -> str:
    """The slow way: halves of characters are replaced after the text is read."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@pytest.mark.parametrize("buffer", [1, 2, 3, 7, 64, 1 << 16])
def test_half_a_character_is_replaced_and_costs_no_other_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buffer: int
):
    """As Python's own parser reads it, wherever the file is cut."""
    monkeypatch.setattr(json_stream, "BUFFER", buffer)
    draws = random.Random(buffer)
    texts = ['"' + "".join(draws.choices(PIECES, k=draws.randrange(1, 12))) + '"' for _ in range(300)]
    path = tmp_path / "values.json"
    path.write_text("[" + ", ".join(texts) + "]", encoding="utf-8")
    expected = [whole(json.loads(text)) for text in texts]
    assert any("\ufffd" in text for text in expected)
    assert list(elements(path)) == expected


def test_it_ends_with_half_an_escape(tmp_path: Path):
    path = tmp_path / "broken.json"
    for end in ("\\", "\\u", "\\ud8", "\\ud83d", "\\ud83d\\u"):
        path.write_text('{"a": "' + end)
        with pytest.raises(InputError, match="broken JSON"):
            document(path)


def test_a_fault_behind_half_a_character_is_found_at_its_place(tmp_path: Path):
    path = tmp_path / "broken.json"
    path.write_text('["\\ude00",\n "\\ud83dA", nix]')
    with pytest.raises(InputError, match=r"line 2, column 1[2-5]: broken JSON"):
        list(elements(path))
