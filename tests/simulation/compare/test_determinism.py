"""Predictions depend on the seed alone, not on the order, the batches, or what happened before."""

from dataclasses import replace

import pytest
from tests.simulation.compare.small_comparison import ALL, answers, run_all, started, with_batch

from fedperfit.protocol.system.files import read_json_lines
from fedperfit.simulation.compare.cells import MAIN, SEARCH, WorkerState, WorkUnit
from fedperfit.simulation.compare.study import plan

pytestmark = pytest.mark.slow  # for what its tests share, whichever comes first

SOME = ["majority-user", "rag-1", "lora-c", "lofit", "perfit"]
CURVES = {"methods": SOME, "history_lengths": [0, 3], "collective_sizes": [2]}


class Killed(Exception):
    """Instead of a kill."""


def test_stopped_anywhere_and_resumed_it_ends_the_same(tmp_path):
    """Every seventh line ends the process; the half line that a kill leaves is cut."""
    whole = started(tmp_path / "whole", **CURVES)
    run_all(whole)
    state = started(tmp_path / "run", **CURVES)
    lines = stops = 0

    def on_line(unit: WorkUnit, seconds: float) -> None:
        nonlocal lines
        lines += 1
        if lines % 7 == 0:
            with (state.folder / unit.file).open("a") as file:
                file.write('{"half": "a line')
            raise Killed

    while True:
        try:
            run_all(WorkerState(state.folder, state.settings), on_line)
            break
        except Killed:
            stops += 1
    assert stops > 2
    assert answers(state.folder, state) == answers(whole.folder, whole)
    assert all(not state.left(unit) for unit in plan(state))


@pytest.mark.parametrize("name", ALL)
def test_order_and_batch_size_change_no_answer(every_method, name):
    unit = WorkUnit("LaMP_2M", name, MAIN, 0)
    whole = every_method
    cells = whole.cells(unit)
    expected = {line["user"]: line["answers"] for line in read_json_lines(whole.folder / unit.file)}
    other = WorkerState(whole.folder, with_batch(whole.settings, 3))
    found = {line["user"]: line["answers"] for line in other.do(unit, cells[::-1])}
    assert found == expected


@pytest.mark.parametrize("name", ["perfit", "oppu", "lofit"])
def test_seeds_differ(every_method, name):
    context = every_method.context("LaMP_2M", 0)
    history = every_method.participants("LaMP_2M").targets[0].history
    starts = set()
    for seed in (0, 1):
        starts.add(replace(context, seed=seed).number(history.name, name))
    assert len(starts) == 2


def test_searches_are_the_same_in_every_run(every_method, tmp_path):
    state = started(tmp_path / "run", methods=["perfit"])
    run_all(state)
    for name in ("perfit-stage1", "perfit"):
        unit = WorkUnit("LaMP_2M", name, SEARCH, 0)
        logs = [read_json_lines(one.folder / unit.file) for one in (every_method, state)]
        assert [[line["values"], line["score"]] for line in logs[0]] == [
            [line["values"], line["score"]] for line in logs[1]
        ]
