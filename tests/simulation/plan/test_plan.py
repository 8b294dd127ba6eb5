"""What `fedperfit plan` says: the numbers of a round, the measured rounds it must meet, what it refuses."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedperfit.simulation.cli import app
from fedperfit.simulation.plan.cli import Form
from fedperfit.simulation.plan.constants import (
    NAME_BYTES,
    SHIPPED,
    STATUS_BYTES,
    STATUS_MEMORY,
    constants_of,
    read_constants,
)
from fedperfit.simulation.plan.costs import Assumptions, Costs, costs
from fedperfit.simulation.plan.round_memory import BYTES_PER_CLIENT, moments

RECORD = json.loads((resources.files("fedperfit.simulation.plan") / SHIPPED).read_text())
MEASURED, OTHERS = RECORD["rounds"], RECORD["others"]
PLANNED = [row for row in MEASURED if row["form"] in list(Form)]


def planned(form: str = "votes", **changes: Any) -> Costs:
    values: dict[str, Any] = {"clients": 1_000_000, "connected": 0.3, "answering": 0.8, "round_size": 1_000}
    values |= {"rounds": 10, "device_seconds": 60.0, "bandwidth": 1e9, "once_bytes": 0}
    return costs(Assumptions(**values | changes), read_constants(None, form))


@pytest.mark.parametrize("row", PLANNED, ids=[f"{row['form']}-{row['replies']}" for row in PLANNED])
def test_a_plan_meets_what_was_measured_within_a_fifth(row: dict[str, Any]) -> None:
    form, replies = row["form"], row["replies"]
    plan = planned(form, rounds=1, clients=replies, connected=1.0, answering=1.0, round_size=0)
    assert plan.messages == row["messages"]
    assert plan.bytes_up == pytest.approx(row["bytes_up"], rel=0.01)
    assert plan.bytes_down == pytest.approx(row["bytes_down"], rel=0.01)
    assert plan.cloud_seconds == pytest.approx(row["seconds"], rel=0.2)
    assert plan.memory == pytest.approx(row["peak_bytes"], rel=0.2)


@pytest.mark.parametrize("row", OTHERS, ids=[f"{row['form']}-{row['replies']}" for row in OTHERS])
def test_a_plan_meets_rounds_that_its_constants_were_not_taken_from(row: dict[str, Any]) -> None:
    replies = row["replies"]
    constants = read_constants(None, row["form"].partition("/")[0]).of_size(row["payload_up"], None)
    assert constants.payload_down == row["payload_down"]
    down, up = constants.payload_down + constants.envelope_down, constants.payload_up + constants.envelope_up
    assert replies * down == pytest.approx(row["bytes_down"], rel=0.02)
    assert replies * up == pytest.approx(row["bytes_up"], rel=0.02)
    assert constants.seconds_of(replies) == pytest.approx(row["seconds"], rel=0.2)
    memory = constants.memory_of(2 * replies, replies, replies)
    assert memory == pytest.approx(row["peak_bytes"], rel=0.2), "as many others were connected"


def test_updates_wait_up_to_16_mib_and_are_averaged_in_parts() -> None:
    few, more, most = (moments(1_024, replies, whole=False) for replies in (1_000, 4_096, 40_000))
    assert few[0].updates == pytest.approx(4 * 1_024 * 1_000, rel=0.05)
    assert most[0] == more[0], "no more of them wait in memory"
    assert few[1].updates - few[0].updates == pytest.approx(16 * 1_024 * 1_000, rel=0.1)
    assert most[1].updates == pytest.approx(24 << 20, rel=0.1), "in a file, but for two parts"
    large, larger = (moments(10_000, replies, whole=True) for replies in (1_000, 100_000))
    assert large[0] == larger[0]
    assert large[0].updates == pytest.approx(16 << 20, rel=0.05)
    assert large[1].updates == larger[1].updates < 4 << 20, "one after the other"


def test_constants_are_those_that_rounds_were_made_with() -> None:
    rows = []
    forms = {
        "votes": (36, 240),
        "int8": (3_014, 3_008),
        "shifts": (24_834, 6_208),
        "large-shifts": (196_934, 49_233),
    }
    for form, (payload, numbers) in forms.items():
        for replies in (100, 1_000, 10_000, 100_000):
            row = {"form": form, "replies": replies, "payload_up": payload, "payload_down": 8 + 4 * numbers}
            row |= {"bytes_up": replies * (payload + 185), "bytes_down": replies * (4 * numbers + 400)}
            row["seconds"] = 0.01 + replies * (5e-4 + 2e-8 * numbers)
            both = moments(numbers, replies, whole="shifts" in form)
            held = max(one.updates + 700 * one.replies for one in both)
            rows.append(row | {"peak_bytes": 3e6 + 380 * replies + held})
    told = constants_of(rows, "votes")
    seconds = (told.round_seconds, told.client_seconds, told.number_seconds)
    assert seconds == pytest.approx((0.01, 5e-4, 2e-8))
    for one in (told, constants_of(rows, "shifts")):
        assert (one.round_bytes, one.reply_bytes) == pytest.approx((3e6, 700))
    assert (told.envelope_up, told.envelope_down) == pytest.approx((185, 392))
    slow = [row | {"seconds": row["replies"] / row["payload_up"]} for row in rows]
    assert constants_of(slow, "votes").number_seconds == 0.0, "a number costs nothing rather than less"


def test_a_broadcast_is_that_of_the_updates() -> None:
    votes, shifts = (read_constants(None, form) for form in ("votes", "shifts"))
    assert votes.of_size(votes.payload_up, None) == votes
    assert shifts.of_size(shifts.payload_up, None) == shifts
    assert votes.of_size(44, None).payload_down == 8 + 4 * 304
    assert votes.of_size(None, 5).payload_down == 5


def test_a_round_asks_more_than_it_wants_and_no_more_than_are_there() -> None:
    plan = planned()
    assert (plan.connected, plan.asked, plan.replies, plan.messages) == (300_000, 1_250, 1_000, 2_250)
    few = planned(clients=1_000)
    assert (few.connected, few.asked, few.replies) == (300, 300, 240)
    assert planned(answering=1e-320).asked == 300_000
    everybody = planned(round_size=0)
    assert (everybody.asked, everybody.replies) == (300_000, 240_000)


def test_a_round_of_one_size_costs_the_same_of_ten_times_the_people() -> None:
    small, large = planned(clients=100_000), planned(clients=1_000_000)
    assert small.bytes_down == large.bytes_down
    assert small.round_seconds == large.round_seconds
    assert large.memory == 300_000 * STATUS_MEMORY, "asking all for their status takes most"
    round_memory = read_constants(None, "votes").memory_of(1_250, 1_250, 1_000) + NAME_BYTES * 9 * 2_250
    assert small.memory == max(30_000 * STATUS_MEMORY, round_memory + 28_750 * BYTES_PER_CLIENT)
    status = sum(STATUS_BYTES.values())
    assert large.total_bytes - small.total_bytes == pytest.approx(270_000 * status)


def test_the_reports_of_earlier_rounds_name_their_clients() -> None:
    once, often = planned(rounds=1, clients=10_000), planned(rounds=101, clients=10_000)
    assert often.memory - once.memory == NAME_BYTES * 100 * (often.asked + often.replies)


def test_a_thin_line_and_a_basis_take_their_time() -> None:
    assert planned(bandwidth=1e6).round_seconds > planned().round_seconds
    told_once = planned(once_bytes=33_000).total_bytes - planned().total_bytes
    assert 9 * 1_250 < told_once / 33_000 < 10 * 1_250, "hardly anybody is asked twice"
    whole = planned(round_size=0, answering=1.0, once_bytes=33_000, rounds=3)
    assert whole.total_bytes - planned(round_size=0, answering=1.0, rounds=3).total_bytes == pytest.approx(
        300_000 * 33_000
    )


def test_the_command_prints_a_table_or_json() -> None:
    told = CliRunner().invoke(app, ["plan", "--clients", "10000,10000000"])
    assert told.exit_code == 0, told.output
    assert "10,000,000" in told.output
    told = CliRunner().invoke(
        app, ["plan", "--clients", "5000", "--form", "shifts", "--up", "50000", "--json"]
    )
    content = json.loads(told.output)
    assert content["constants"]["payload_up"] == 50_000
    assert [one["clients"] for one in content["plans"]] == [5_000]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--clients", "many"], "'many' is not a number of people"),
        (["--clients", "0"], "clients=0: must be at least 1"),
        (["--clients", "10000000000000"], "clients=10000000000000: must be 1,000,000,000,000 at most"),
        (["--clients", "9" * 5_000], "is not a number of people"),
        (["--rounds", "9" * 400], "must be 1,000,000,000,000 at most"),
        (["--round-size", "-1"], "round-size=-1: must be at least 0"),
        (["--up", "9" * 400], "must be 1,000,000,000,000 at most"),
        (["--down", "9" * 400], "must be 1,000,000,000,000 at most"),
        (["--up", "6"], "up=6: an update of votes has 7 bytes at least"),
        (["--up", "3", "--form", "shifts"], "up=3: an update of shifts has 4 bytes at least"),
        (["--device-seconds", "inf"], "device-seconds=inf: must be a number from 0 to 1e+12"),
        (["--device-seconds", "1e308"], "device-seconds=1e+308: must be a number from 0 to 1e+12"),
        (["--connected", "0"], "connected=0: must be a share"),
        (["--answering", "1.5"], "answering=1.5: must be a share"),
        (["--megabits", "0"], "megabits=0: must be a number from 1e-06 to 1e+12"),
        (["--megabits", "1e-310"], "megabits=1e-310: must be a number from 1e-06 to 1e+12"),
        (["--benchmark", "nothing.json"], "nothing.json"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], reason: str) -> None:
    told = CliRunner().invoke(app, ["plan", *arguments])
    assert reason in str(told.exception)
    assert "\n" not in str(told.exception)
    assert len(str(told.exception)) < 200


@pytest.mark.parametrize(
    ("key", "value"),
    [("seconds", float("nan")), ("seconds", 1e308), ("peak_bytes", 0), ("bytes_up", 10**400)],
)
def test_a_record_of_what_no_machine_measures_is_refused(tmp_path: Path, key: str, value: float) -> None:
    rounds = [row | {key: value} for row in MEASURED]
    (tmp_path / "r.json").write_text(json.dumps(RECORD | {"rounds": rounds}))
    told = CliRunner().invoke(app, ["plan", "--benchmark", str(tmp_path / "r.json")])
    assert f"r.json: 0/{key}: input should be " in str(told.exception)


def test_the_largest_values_are_still_json() -> None:
    largest = {"--clients": "1e12", "--rounds": "1e12", "--once-bytes": "1e12", "--up": "1e12"}
    words = [word for name, number in largest.items() for word in (name, str(int(float(number))))]
    words += ["--device-seconds", "1e12", "--megabits", "1e-6", "--round-size", "0", "--answering", "1e-320"]
    told = CliRunner().invoke(app, ["plan", *words, "--json"])
    assert told.exit_code == 0, told.exception
    assert "Infinity" not in told.output


def test_a_round_that_cannot_have_what_it_wants_says_so() -> None:
    told = CliRunner().invoke(app, ["plan", "--clients", "1000,100000"])
    assert "1,000 people: a round gets 240 of the 1,000 updates that it wants" in told.output
    assert told.output.count("that it wants") == 1
