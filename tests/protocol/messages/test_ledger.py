import pytest

from fedperfit.protocol.messages.ledger import Entry, Ledger
from fedperfit.protocol.system.errors import InputError


def entry(number: int) -> Entry:
    return Entry(
        phase="train", round=number, client=f"user-{number}", direction="up", payload=10, message=10 + number
    )


def test_entries_come_back_in_order(tmp_path):
    path = tmp_path / "ledger" / "train.jsonl"
    assert Ledger(path).entries() == []
    Ledger(path).add([entry(1), entry(2)])
    Ledger(path).add([])
    Ledger(path).add([entry(3)])
    assert Ledger(path).entries() == [entry(1), entry(2), entry(3)]


@pytest.mark.parametrize("line", ['{"phase": "train"}', "[1]", "7", '{"phase": "tr'])
def test_broken_line_names_the_file(tmp_path, line):
    path = tmp_path / "train.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"train\.jsonl"):
        Ledger(path).entries()
