"""What was spent is counted once, and cannot be taken back."""

from pathlib import Path

import pytest

from fedperfit.cloud.privacy.accountant import Charge, epsilon_of
from fedperfit.cloud.privacy.ledger import BudgetSpent, Line, PrivacyLedger
from fedperfit.protocol.system.errors import InputError

DELTA = 1e-5


def line(number: int, run: str = "a" * 64) -> Line:
    return Line(run, number, 10.0, 1.0)


@pytest.fixture
def ledger(tmp_path: Path) -> PrivacyLedger:
    ledger = PrivacyLedger(tmp_path)
    for number in (1, 2, 3):
        ledger.charge(line(number), 8.0, DELTA)
    return ledger


def test_rounds_add_up_and_a_round_counts_once(ledger: PrivacyLedger) -> None:
    expected = epsilon_of([Charge(10.0)] * 3, DELTA)
    assert ledger.epsilon(DELTA) == expected
    ledger.charge(line(3), 8.0, DELTA)
    assert (ledger.epsilon(DELTA), len(ledger.lines())) == (expected, 3)


def test_another_run_adds_to_the_same_total(ledger: PrivacyLedger) -> None:
    ledger.charge(line(1, "b" * 64), 8.0, DELTA)
    assert ledger.epsilon(DELTA) == epsilon_of([Charge(10.0)] * 4, DELTA)


def test_a_round_beyond_the_target_is_not_charged(ledger: PrivacyLedger) -> None:
    target = epsilon_of([Charge(10.0)] * 3, DELTA)
    with pytest.raises(BudgetSpent, match=r"round 4 would bring epsilon to .*, above target-epsilon"):
        ledger.charge(line(4), target, DELTA)
    assert len(ledger.lines()) == 3


def test_the_same_round_with_other_noise_is_refused(ledger: PrivacyLedger) -> None:
    with pytest.raises(InputError, match="other noise"):
        ledger.charge(Line("a" * 64, 3, 11.0, 1.0), 8.0, DELTA)


@pytest.mark.parametrize("harm", ["change", "drop-first", "drop-middle", "swap", "foreign", "no-key"])
def test_a_changed_ledger_is_refused(ledger: PrivacyLedger, harm: str) -> None:
    lines = ledger.path.read_text().splitlines(keepends=True)
    if harm == "change":
        lines[1] = lines[1].replace("10.0", "99.0")
    elif harm == "drop-first":
        del lines[0]
    elif harm == "drop-middle":
        del lines[1]
    elif harm == "swap":
        lines[0], lines[1] = lines[1], lines[0]
    elif harm == "foreign":
        lines.append('{"run": "c", "round": 1, "multiplier": 1.0, "rate": 1.0, "code": "00"}\n')
    else:
        (ledger.path.parent / "privacy.key").unlink()
    ledger.path.write_text("".join(lines))
    with pytest.raises(InputError):
        ledger.lines()


def test_neither_file_can_be_set_back_against_the_other(ledger: PrivacyLedger) -> None:
    ledger.check("a" * 64, 3)
    ledger.check("a" * 64, 2)  # killed between the charge and the checkpoint
    with pytest.raises(InputError, match="set back"):
        ledger.check("a" * 64, 1)
    with pytest.raises(InputError, match="not charged"):
        ledger.check("a" * 64, 4)
    ledger.charge(Line.end("a" * 64, 3), 8.0, DELTA)
    ledger.check("a" * 64, 3)
    with pytest.raises(InputError, match="set back"):
        ledger.check("a" * 64, 2)


def test_an_erased_ledger_is_noticed(ledger: PrivacyLedger) -> None:
    ledger.path.unlink()
    with pytest.raises(InputError, match="not charged"):
        ledger.check("a" * 64, 3)


def test_a_line_that_a_kill_cut_is_written_again(ledger: PrivacyLedger) -> None:
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole[:-20])
    ledger.charge(line(3), 8.0, DELTA)
    assert ledger.path.read_bytes() == whole
    ledger.path.chmod(0o600)
    assert (ledger.path.parent / "privacy.key").stat().st_mode & 0o077 == 0
