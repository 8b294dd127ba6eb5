"""Files of results that were cut off, or are somebody else's, are named in one line."""

import json
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from tests.simulation.communication.small_study import small_settings
from tests.simulation.compare.small_comparison import started

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.simulation.audit.gate import read_result, stored_gate
from fedperfit.simulation.audit.settings import AuditSettings
from fedperfit.simulation.audit.study import begin, run_audit
from fedperfit.simulation.communication.ground import Ground
from fedperfit.simulation.communication.result import results_of
from fedperfit.simulation.communication.row import rows_by_name
from fedperfit.simulation.communication.units import DRAW, SEED, Unit, best_rates
from fedperfit.simulation.compare.cells import MAIN, SEARCH, Line, WorkUnit
from fedperfit.simulation.compare.results import write_results
from fedperfit.simulation.plan.constants import SHIPPED, read_constants

GATE = Path(__file__).parent / "audit" / "gate.json"
BROKEN = ['{"subject": "a', "[1]", '{"a": 1}', "\xff"]


def check_named(path: Path, content: str, read: Callable[[], Any]) -> None:
    """A file with this content is named in one line by what reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=re.escape(str(path))) as error:
        read()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [*BROKEN, '{"subject": "noise", "trials": [{"user": "ada"}]}'])
def test_trials_of_an_audit(tmp_path: Path, content: str) -> None:
    begin(tmp_path, AuditSettings.read("quickstart", {"attacks": ["dp-mechanism"]}))
    path = tmp_path / "trials" / "dp-mechanism.jsonl"
    check_named(path, content + "\n", lambda: run_audit(tmp_path, lambda event: None))


@pytest.mark.parametrize("content", BROKEN)
@pytest.mark.parametrize("read", [read_result, stored_gate])
def test_the_stored_result_of_an_audit(tmp_path: Path, content: str, read: Callable[[Path], Any]) -> None:
    check_named(tmp_path / "result.json", content, lambda: read(tmp_path / "result.json"))


@pytest.mark.parametrize("change", [{"role": "villain"}, {"auc": {"value": 0.5}}, {"auc": [1]}])
def test_a_stored_result_with_figures_of_something_else(tmp_path: Path, change: dict[str, Any]) -> None:
    path, result = tmp_path / "result.json", read_json(GATE)
    attack = next(iter(result["attacks"].values()))
    next(iter(attack["conditions"].values())).update(change)
    write_json(path, result)
    check_named(path, path.read_text(), lambda: read_result(path))


def test_a_stored_result_with_settings_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, read_json(GATE) | {"settings": {"pace": 7}})
    check_named(path, path.read_text(), lambda: stored_gate(path))


@pytest.mark.parametrize("kind", [MAIN, SEARCH])
@pytest.mark.parametrize("content", [*BROKEN, '{"draw": 0, "user": "ada", "size": -1}'])
def test_cells_and_searches_of_a_comparison(tmp_path: Path, kind: str, content: str) -> None:
    state = started(tmp_path, methods=["base", "lora-p"])
    unit = WorkUnit("LaMP_2M", "lora-p", kind, 0)
    check_named(tmp_path / unit.file, content + "\n", lambda: state.left(unit))
    if kind == MAIN:
        check_named(tmp_path / unit.file, content + "\n", lambda: write_results(state))
    else:
        check_named(tmp_path / unit.file, content + "\n", lambda: state.chosen("LaMP_2M", "lora-p"))


def test_a_cell_with_too_few_answers(tmp_path: Path) -> None:
    state = started(tmp_path, methods=["base"])
    user = state.participants("LaMP_2M").targets[0].history.name
    costs = {key: 1 for key in Line.__annotations__ if key not in ("user", "answers")}
    line = {"user": user, "answers": ["x"], **costs}
    path = tmp_path / WorkUnit("LaMP_2M", "base", MAIN, 0).file
    check_named(path, json.dumps(line), lambda: write_results(state))


@pytest.mark.parametrize("content", BROKEN)
def test_units_of_a_study_of_communication(tmp_path: Path, content: str) -> None:
    settings = small_settings(rows=["perfit"], draws=1)
    unit, draw = Unit("LaMP_2M", "perfit", SEED, 0), Unit("LaMP_2M", "perfit", DRAW, 0)
    check_named(tmp_path / draw.file, content, lambda: best_rates(tmp_path, unit, 1))
    ground, rows = Ground(tmp_path, settings), {"perfit": rows_by_name()["perfit"]}
    check_named(tmp_path / unit.file, content, lambda: results_of(tmp_path, ground, rows))


def test_a_record_whose_rounds_are_of_something_else(tmp_path: Path) -> None:
    path, shipped = tmp_path / "record.json", resources.files("fedperfit.simulation.plan") / SHIPPED
    record = json.loads(shipped.read_text(encoding="utf-8"))
    del record["rounds"][0]["replies"]
    check_named(path, json.dumps(record), lambda: read_constants(path, "votes"))
