from fedperfit.cloud.clients.sizes import NAMES, OTHER
from fedperfit.simulation.report.traffic import in_order, message_table, part_table, part_words

RUN = (
    "status pulls train directions personalize evaluate-base evaluate-collective evaluate-directions "
    "evaluate-personal time-0 time-4 history-0 history-2-fit history-2 history-16-fit history-16 "
    "collective-10-train collective-10 collective-10-fit collective-10-personal collective-40 something-else"
).split()


def totals(tensors=None) -> dict:
    one = {
        "messages": 2,
        "message": 3_000,
        "payload": 2_000,
        **({} if tensors is None else {"tensors": tensors}),
    }
    return {"down": one, "up": one}


def test_phases_stand_in_the_order_of_a_run():
    assert [name for name, _ in in_order(dict.fromkeys(sorted(RUN, reverse=True)))] == RUN


def test_training_is_told_round_by_round_after_what_comes_before_it():
    phases = {name: totals() for name in ("evaluate-base", "status", "train")}
    table = message_table({"phases": phases, "rounds": [{"round": 1, **totals()}, {"round": 2, **totals()}]})
    assert [row.cells[0] for row in table.rows] == ["status", "round 1", "round 2", "evaluate-base"]
    assert table.rows[0].cells[1:4] == ["2", "3,000", "2,000"]


def test_parts_of_a_phase_stand_in_one_line_and_are_explained():
    sent = {"b": 128, "R": 24_576, "new": 1, "header": 388}
    about = {"phases": {"train": totals(sent), "status": totals({}), "evaluate-base": totals()}}
    (row,) = part_table(about).rows
    assert row.cells[0] == "train"
    assert row.cells[1].replace("\N{NO-BREAK SPACE}", " ") == "header 388, R 24,576, b 128, new 1"
    assert [name for name, _ in part_words(about)] == ["header", "R", "b"]


def test_a_way_without_payload_says_so():
    about = {"phases": {"train": {"down": totals({"R": 1})["down"], "up": totals({})["up"]}}}
    assert part_table(about).rows[0].cells[2] == "none"


def test_ledgers_of_earlier_versions_have_no_parts():
    assert part_table({"phases": {"train": totals()}}).rows == []


def test_every_name_that_the_ledger_gives_is_explained():
    names = {*NAMES.values(), OTHER, "header", "R", "W", "b"}
    about = {"phases": {"train": totals(dict.fromkeys(names, 1))}}
    assert {name for name, _ in part_words(about)} == names
