"""Findings are told as a table or as JSON, and the exit code says whether something is wrong."""

import json

import pytest
import typer

from fedperfit.protocol.doctor.findings import Verdict, examine, ok, warning, wrong
from fedperfit.protocol.doctor.report import tell
from fedperfit.protocol.system.errors import InputError


def test_what_stops_a_group_is_a_finding_and_the_others_go_on():
    def broken():
        yield ok("first", "fine")
        raise InputError("cannot be read")

    def full():
        raise OSError(28, "No space left on device")

    findings = examine({"one": broken, "two": full, "three": lambda: [ok("last", "fine")]})
    assert [(one.check, one.verdict) for one in findings] == [
        *(("first", Verdict.OK), ("one", Verdict.WRONG), ("two", Verdict.WRONG), ("last", Verdict.OK))
    ]
    assert "cannot be read" in next(one.said for one in findings if one.check == "one")


@pytest.mark.parametrize("as_json", [True, False])
def test_something_wrong_exits_with_1_and_shows_what_to_do(capsys, as_json):
    tell([ok("a", "fine"), warning("b", "old", "renew [it]")], as_json=as_json)
    said = capsys.readouterr().out
    assert "renew [it]" in said
    with pytest.raises(typer.Exit) as stopped:
        tell([wrong("c", "gone\x1b[31m", "bring it back")], as_json=as_json)
    assert stopped.value.exit_code == 1
    said = capsys.readouterr().out
    assert "bring it back" in said
    assert "\x1b[31m" not in said
    if as_json:
        assert json.loads(said)[0]["verdict"] == "wrong"
