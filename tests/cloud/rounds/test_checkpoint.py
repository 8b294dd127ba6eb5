import dataclasses
from pathlib import Path

import pytest
from tests.cloud.fake_grid import HEADER, SHAPE, flat, perturbed

from fedperfit.cloud.rounds.checkpoint import Checkpoint, Checkpoints
from fedperfit.cloud.rounds.round_report import RoundReport
from fedperfit.protocol.messages.ledger import Entry, Ledger
from fedperfit.protocol.shift.packing import pack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.shift.shift_file import write_shift_file
from fedperfit.protocol.system.errors import InputError

ENTRY = Entry("train", 1, "anna", "up", 10, 20)


def checkpoint(round: int, entries: int = 0) -> Checkpoint:
    shift = perturbed(Shift.identity(SHAPE, seed=0), str(round))
    history = [report(number) for number in range(1, round + 1)]
    return Checkpoint(round, shift, dataclasses.replace(HEADER, round=round), "digest", entries, history)


def report(round: int) -> RoundReport:
    names = [f"client-{n}-{'x' * 40}" for n in range(100)]
    numbers = {"items": 8 * round, "loss": 1.0, "bytes_down": 20, "bytes_up": 10}
    return RoundReport(round=round, asked=names, admitted=names[1:], dropped={}, skipped=False, **numbers)


def written(folder: Path, rounds: int) -> Checkpoints:
    """Write the checkpoints of the start and of so many rounds."""
    store = Checkpoints(folder)
    for round in range(rounds + 1):
        store.write(checkpoint(round))
    return store


def test_round_trip_keeps_every_bit_and_every_round(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    assert store.latest() is None
    written(tmp_path, 11)
    latest = store.latest("digest")
    assert latest is not None
    assert (latest.round, latest.header.round) == (11, 11)
    assert flat(latest.shift) == flat(checkpoint(11).shift)
    assert latest.history == checkpoint(11).history
    assert store.read(4).history == checkpoint(4).history
    assert len(list(tmp_path.iterdir())) == 12


def test_a_file_is_no_larger_after_many_rounds(tmp_path: Path) -> None:
    store = written(tmp_path, 11)
    sizes = [store.path(round).stat().st_size for round in (1, 11)]
    assert sizes[1] < sizes[0] + 100
    read = store.read(11).history
    assert read[0].asked[0] is read[10].asked[0], "nor is a name in memory once more for every round"


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    store, third = written(tmp_path, 2), checkpoint(3)
    fields = {"round": 2, "digest": "digest", "entries": 0}
    history = [one.to_json() for one in checkpoint(2).history]
    packed = pack(checkpoint(2).shift, dataclasses.replace(HEADER, round=2, dtype="float32"))
    write_shift_file(store.path(2), "checkpoint", packed, fields | {"history": history})
    store.path(1).unlink()
    store.write(third)
    assert store.read(3).history == third.history


def test_a_file_that_is_missing_among_those_of_a_run_is_named(tmp_path: Path) -> None:
    store = written(tmp_path, 3)
    store.path(2).unlink()
    with pytest.raises(InputError, match=r"round-0002\.safetensors: no such file"):
        store.latest()


def test_other_settings(tmp_path: Path) -> None:
    store = written(tmp_path, 1)
    with pytest.raises(InputError, match="the checkpoints belong to a run with other settings"):
        store.latest("another")


@pytest.mark.parametrize("keep", [0, 4, 60, 300, -1])
def test_a_truncated_file_is_named_and_not_skipped(keep: int, tmp_path: Path) -> None:
    store = written(tmp_path, 2)
    path = store.path(2)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"round-0002\.safetensors: truncated"):
        store.latest()


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    store = written(tmp_path, 1)
    data = bytearray(store.path(1).read_bytes())
    data[-3] ^= 1
    store.path(1).write_bytes(data)
    with pytest.raises(InputError, match="does not match its SHA-256"):
        store.latest()


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        ("release", {}, "not a checkpoint"),
        ("checkpoint", {}, "round is missing"),
        ("checkpoint", {"round": "1", "digest": "", "entries": 0, "history": []}, "not of type int"),
        ("checkpoint", {"round": 3, "digest": "", "entries": 0, "history": []}, "holds round 3"),
        ("checkpoint", {"round": 1, "digest": "", "entries": 0, "history": [{}]}, "round report"),
        ("checkpoint", {"round": 1, "digest": "", "entries": 0, "history": 1}, "not iterable"),
        ("checkpoint", {"round": 1, "digest": "", "entries": 0}, "round report"),
    ],
)
def test_other_contents(kind: str, fields: dict[str, object], reason: str, tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    packed = pack(checkpoint(1).shift, dataclasses.replace(HEADER, round=1))
    write_shift_file(store.path(1), kind, packed, fields)
    with pytest.raises(InputError, match=rf"round-0001\.safetensors: .*{reason}"):
        store.latest()


def test_an_unfinished_write_is_not_a_checkpoint(tmp_path: Path) -> None:
    store = written(tmp_path, 1)
    (tmp_path / ".round-0002.safetensors.x1").write_bytes(b"half")
    latest = store.latest()
    assert latest is not None
    assert latest.round == 1


def test_rewind_cuts_the_ledger_to_the_checkpoint(tmp_path: Path) -> None:
    store, ledger = Checkpoints(tmp_path), Ledger(tmp_path / "ledger.jsonl")
    assert store.rewind(ledger) is None
    ledger.add([ENTRY] * 2)
    store.write(checkpoint(0))
    store.write(checkpoint(1, entries=2))
    kept = ledger.path.read_bytes()
    ledger.add([ENTRY] * 3)
    with ledger.path.open("ab") as file:
        file.write(b'{"phase": "tra')  # the kill came in the middle of a write
    store.rewind(ledger)
    assert ledger.path.read_bytes() == kept
    assert len(ledger.entries()) == 2


def test_rewind_without_a_checkpoint_empties_the_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.add([ENTRY])
    assert Checkpoints(tmp_path / "none").rewind(ledger) is None
    assert ledger.entries() == []


def test_a_ledger_shorter_than_its_checkpoint_is_an_error(tmp_path: Path) -> None:
    store, ledger = Checkpoints(tmp_path), Ledger(tmp_path / "ledger.jsonl")
    ledger.add([ENTRY])
    store.write(checkpoint(0))
    store.write(checkpoint(1, entries=2))
    with pytest.raises(InputError, match="1 entries, but the last checkpoint counts 2"):
        store.rewind(ledger)
