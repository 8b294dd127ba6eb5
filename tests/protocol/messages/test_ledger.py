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


def blanked(ledger: Ledger) -> None:
    """Make blank lines of all entries on file, so that who counts them again finds none."""
    ledger.path.write_bytes(b"\n" * ledger.path.stat().st_size)


def test_what_was_counted_is_not_read_again(tmp_path):
    ledger = Ledger(tmp_path / "train.jsonl")
    assert ledger.count() == 0
    for number in range(1, 5):
        ledger.add([entry(number)] * 2)
        assert ledger.count() == ledger.count() == 2 * number
        blanked(ledger)


def test_what_a_resumed_run_keeps_is_not_read_again(tmp_path):
    Ledger(tmp_path / "train.jsonl").add([entry(number) for number in range(1, 9)])
    resumed = Ledger(tmp_path / "train.jsonl")
    resumed.cut(5)
    assert [one.round for one in resumed.entries()] == [1, 2, 3, 4, 5]
    blanked(resumed)
    resumed.add([entry(6)])
    assert resumed.count() == 6
    resumed.cut(0)
    assert resumed.count() == 0
