"""What `fedperfit plan` says: the numbers of a round, the measured rounds it must meet, what it refuses."""

import json
from importlib import resources
from typing import Any

import pytest
from typer.testing import CliRunner

from fedperfit.simulation.cli import app
from fedperfit.simulation.plan.constants import (
    BYTES_PER_CLIENT,
    SHIPPED,
    STATUS_BYTES,
    STATUS_MEMORY,
    read_constants,
)
from fedperfit.simulation.plan.costs import Assumptions, Costs, costs

MEASURED = json.loads((resources.files("fedperfit.simulation.plan") / SHIPPED).read_text())["rounds"]


def planned(form: str = "votes", **changes: Any) -> Costs:
    values: dict[str, Any] = {"clients": 1_000_000, "connected": 0.3, "answering": 0.8, "round_size": 1_000}
    values |= {"rounds": 10, "device_seconds": 60.0, "bandwidth": 1e9, "once_bytes": 0}
    return costs(Assumptions(**values | changes), read_constants(None, form))


def measured_memory(replies: int) -> float:
    return next(one["peak_bytes"] for one in MEASURED if (one["form"], one["replies"]) == ("votes", replies))


@pytest.mark.parametrize("form", ["votes", "shifts"])
@pytest.mark.parametrize("replies", [100, 1_000, 10_000])
def test_a_plan_meets_what_was_measured_within_a_fifth(form: str, replies: int) -> None:
    (row,) = [one for one in MEASURED if (one["form"], one["replies"]) == (form, replies)]
    plan = planned(form, clients=replies, connected=1.0, answering=1.0, round_size=0)
    assert plan.messages == row["messages"]
    assert plan.bytes_up == pytest.approx(row["bytes_up"], rel=0.01)
    assert plan.bytes_down == pytest.approx(row["bytes_down"], rel=0.01)
    assert plan.cloud_seconds == pytest.approx(row["seconds"], rel=0.2)
    assert plan.memory == pytest.approx(row["peak_bytes"], rel=0.2)


def test_a_round_asks_more_than_it_wants_and_no_more_than_are_there() -> None:
    plan = planned()
    assert (plan.connected, plan.asked, plan.replies, plan.messages) == (300_000, 1_250, 1_000, 2_250)
    few = planned(clients=1_000)
    assert (few.connected, few.asked, few.replies) == (300, 300, 240)
    everybody = planned(round_size=0)
    assert (everybody.asked, everybody.replies) == (300_000, 240_000)


def test_a_round_of_one_size_costs_the_same_of_ten_times_the_people() -> None:
    small, large = planned(clients=100_000), planned(clients=1_000_000)
    assert small.bytes_down == large.bytes_down
    assert small.round_seconds == large.round_seconds
    assert large.memory == 300_000 * STATUS_MEMORY, "asking all for their status takes most"
    assert small.memory == max(30_000 * STATUS_MEMORY, measured_memory(1_000) + 29_000 * BYTES_PER_CLIENT)
    status = sum(STATUS_BYTES.values())
    assert large.total_bytes - small.total_bytes == pytest.approx(270_000 * status)


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
        (["--connected", "0"], "connected=0: must be a share"),
        (["--answering", "1.5"], "answering=1.5: must be a share"),
        (["--megabits", "0"], "bandwidth must be above 0"),
        (["--benchmark", "nothing.json"], "nothing.json"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], reason: str) -> None:
    told = CliRunner().invoke(app, ["plan", *arguments])
    assert reason in str(told.exception)
    assert "\n" not in str(told.exception)
