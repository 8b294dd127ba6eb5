"""An audit in its folder: begun, killed, resumed, concluded, and held against a stored result."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, read_json_lines, write_json
from fedperfit.simulation.audit.attack import attacks_by_name
from fedperfit.simulation.audit.gate import Regression, check
from fedperfit.simulation.audit.page import REPORT, finding
from fedperfit.simulation.audit.result import RESULT, setting_of
from fedperfit.simulation.audit.settings import AuditSettings
from fedperfit.simulation.audit.study import begin, extend, run_audit, stored_settings
from fedperfit.simulation.cli import app

OWN = """
from fedperfit.simulation.audit.attack import Attack, Role, Trials


class Coin(Attack):
    name = "coin"
    title = "Does a coin tell?"
    meaning = "Somebody tosses a coin."

    def conditions(self):
        return {"a coin": Role.ATTACK, "the truth": Role.POSITIVE, "another coin": Role.NULL}

    def subjects(self):
        return ["ada", "bob", "eve"]

    def trials(self, subject):
        truths = [n % 2 == 0 for n in range(8)]
        tossed = [float(n % 3 == 0) for n in range(8)]
        right = [float(truth) for truth in truths]
        return [
            Trials("a coin", subject, tossed, truths),
            Trials("the truth", subject, right, truths),
            Trials("another coin", subject, [0.0] * 8, truths),
        ]
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "coin.py"
    path.write_text(OWN)
    return path


@pytest.fixture
def finished(tmp_path: Path, own: Path) -> tuple[Path, dict[str, Any]]:
    settings = AuditSettings.read("quickstart", {"attacks": ["coin"], "attack-files": [str(own)]})
    folder = tmp_path / "audit"
    begin(folder, settings)
    return folder, run_audit(folder, lambda event: None)


def test_an_attack_of_ones_own_is_one_short_file(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, result = finished
    conditions = result["attacks"]["coin"]["conditions"]
    assert conditions["the truth"]["auc"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert conditions["another coin"]["auc"]["value"] == 0.5
    assert read_json(folder / RESULT) == result
    assert "Does a coin tell?" in (folder / REPORT).read_text()


def test_a_killed_audit_goes_on(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, result = finished
    path = folder / "trials" / "coin.jsonl"
    first, *_ = path.read_text().splitlines()
    path.write_text(first + '\n{"subject": "bo')  # killed while the second was written
    told: list[dict[str, Any]] = []
    assert run_audit(folder, told.append) == result
    assert [event["event"] for event in told] == ["start", "work", "work", "figures", "done"]
    assert [(event["done"], event["total"]) for event in told[1:3]] == [(1, 2), (2, 2)]
    assert told[-2]["figures"]["coin/the truth/auc/value"] == 1.0
    assert [line["subject"] for line in read_json_lines(path)] == ["ada", "bob", "eve"]


def test_an_audit_is_extended_by_attacks(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    extend(folder, ["dp-mechanism"])
    assert stored_settings(folder).attacks == ["coin", "dp-mechanism"]
    with pytest.raises(InputError, match="unknown attack 'dice'"):
        extend(folder, ["dice"])


def test_a_folder_with_anything_in_it_is_left_alone(finished: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(InputError, match="is not empty"):
        begin(finished[0], stored_settings(finished[0]))


def test_the_command_runs_lists_and_gates(tmp_path: Path, own: Path) -> None:
    run = CliRunner().invoke
    listed = run(app, ["audit", "--list-attacks", "--own", str(own)])
    assert {"coin", *attacks_by_name()} <= set(listed.output.split())
    out = tmp_path / "out"
    done = run(app, ["audit", str(out), "--own", str(own), "--attacks", "coin"])
    assert done.exit_code == 0, done.output
    again = run(app, ["audit", str(out), "--resume", "--gate", str(out / RESULT)])
    assert again.exit_code == 0, again.output
    assert "no attack tells more" in again.output
    stored = read_json(out / RESULT)
    stored["attacks"]["coin"]["conditions"]["a coin"]["auc"]["high"] = 0.1
    write_json(tmp_path / "better.json", stored)
    failed = run(app, ["audit", str(out), "--resume", "--gate", str(tmp_path / "better.json")])
    assert isinstance(failed.exception, Regression)
    assert len(str(failed.exception).splitlines()) == 1


def changed(result: dict[str, Any], condition: str, **auc: float) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(result))
    copy["attacks"]["coin"]["conditions"][condition]["auc"] |= auc
    return copy


@pytest.mark.parametrize(
    ("condition", "value", "fault"),
    [
        ("a coin", 0.9, "a coin: auc is 0.900, above"),
        ("another coin", 0.9, "another coin: auc is 0.900, above"),
        ("the truth", 0.6, "below 1.000: the positive control fails"),
    ],
)
def test_the_gate_names_what_got_worse(
    finished: tuple[Path, dict[str, Any]], condition: str, value: float, fault: str
) -> None:
    _, stored = finished
    with pytest.raises(Regression, match=fault):
        check(changed(stored, condition, value=value), stored)


def test_what_tells_less_passes_the_gate(finished: tuple[Path, dict[str, Any]]) -> None:
    _, stored = finished
    check(changed(stored, "a coin", value=0.3), stored)


def test_an_attack_that_is_missing_fails_the_gate(finished: tuple[Path, dict[str, Any]]) -> None:
    _, stored = finished
    with pytest.raises(Regression, match="the truth: missing"):
        check({**stored, "attacks": {}}, stored)


def test_results_of_other_settings_are_not_compared(finished: tuple[Path, dict[str, Any]]) -> None:
    _, stored = finished
    with pytest.raises(InputError, match="codec is float32, in the stored result sign"):
        check({**stored, "setting": stored["setting"] | {"codec": "float32"}}, stored)


def test_one_pass_is_one_epoch(finished: tuple[Path, dict[str, Any]]) -> None:
    settings = stored_settings(finished[0]).replace(collective_epochs=1, personal_epochs=2)
    told = setting_of(settings)
    assert told["training of a round"].startswith("1 epoch, ")
    assert told["training of a personal shift"].startswith("2 epochs, ")


def test_a_finding_trusts_no_attack_whose_controls_fail(finished: tuple[Path, dict[str, Any]]) -> None:
    _, result = finished
    blind = changed(result, "the truth", value=0.5, low=0.5)["attacks"]["coin"]
    assert finding(blind).startswith("Proves nothing")
    seeing = changed(result, "another coin", value=0.9, low=0.8)["attacks"]["coin"]
    assert finding(seeing).startswith("Proves nothing")
    assert (
        finding(changed(result, "a coin", low=0.4)["attacks"]["coin"])
        == "Not shown to tell more than guessing, as far as the intervals reach."
    )
