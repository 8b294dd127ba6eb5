"""The same seed gives the same predictions, whatever the order, the batches, or what happened in between."""

from dataclasses import replace

import pytest
from tests.simulation.compare.small_comparison import ALL, answers, begun, run_all, with_batch

from fedperfit.protocol.system.files import read_json_lines
from fedperfit.simulation.compare.cells import MAIN, SEARCH, Lot, Workshop
from fedperfit.simulation.compare.study import plan

SOME = ["majority-user", "rag-1", "lora-c", "lofit", "perfit"]
CURVES = {"methods": SOME, "history_lengths": [0, 3], "collective_sizes": [2]}


class Killed(Exception):
    """Instead of a kill."""


def test_stopped_anywhere_and_resumed_it_ends_the_same(tmp_path):
    """Every seventh line ends the process; the half line that a kill leaves is cut."""
    whole = begun(tmp_path / "whole", **CURVES)
    run_all(whole)
    shop = begun(tmp_path / "run", **CURVES)
    lines = stops = 0

    def on_line(lot: Lot, seconds: float) -> None:
        nonlocal lines
        lines += 1
        if lines % 7 == 0:
            with (shop.folder / lot.file).open("a") as file:
                file.write('{"half": "a line')
            raise Killed

    while True:
        try:
            run_all(Workshop(shop.folder, shop.settings), on_line)
            break
        except Killed:
            stops += 1
    assert stops > 2
    assert answers(shop.folder, shop) == answers(whole.folder, whole)
    assert all(not shop.left(lot) for lot in plan(shop))


@pytest.mark.parametrize("name", ALL)
def test_order_and_batch_size_change_no_answer(every_method, name):
    lot = Lot("LaMP_2M", name, MAIN, 0)
    whole = every_method
    cells = whole.cells(lot)
    expected = {line["user"]: line["answers"] for line in read_json_lines(whole.folder / lot.file)}
    other = Workshop(whole.folder, with_batch(whole.settings, 3))
    found = {line["user"]: line["answers"] for line in other.do(lot, cells[::-1])}
    assert found == expected


@pytest.mark.parametrize("name", ["perfit", "oppu", "lofit"])
def test_seeds_differ(every_method, name):
    bench = every_method.bench("LaMP_2M", 0)
    history = every_method.cast("LaMP_2M").targets[0].history
    starts = set()
    for seed in (0, 1):
        starts.add(replace(bench, seed=seed).number(history.name, name))
    assert len(starts) == 2


def test_searches_are_the_same_in_every_run(every_method, tmp_path):
    shop = begun(tmp_path / "run", methods=["perfit"])
    run_all(shop)
    for name in ("perfit-stage1", "perfit"):
        lot = Lot("LaMP_2M", name, SEARCH, 0)
        logs = [read_json_lines(one.folder / lot.file) for one in (every_method, shop)]
        assert [[line["values"], line["score"]] for line in logs[0]] == [
            [line["values"], line["score"]] for line in logs[1]
        ]
