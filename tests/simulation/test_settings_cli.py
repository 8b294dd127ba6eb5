"""`fedperfit settings` and `fedperfit presets`: all settings are listed, all presets parse."""

import sys

import pytest

from fedperfit.protocol.presets import preset_names, preset_text
from fedperfit.protocol.settings.describe import described
from fedperfit.simulation.cli import main
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.settings_cli import GROUPS

ALL = [(group, setting) for group, listed in GROUPS.items() for setting in listed]


def fedperfit(monkeypatch, *arguments):
    """Run the command line; the exit code."""
    monkeypatch.setattr(sys, "argv", ["fedperfit", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code or 0


@pytest.mark.parametrize(("group", "setting"), ALL, ids=[f"{g.split(':')[0]}/{s.key}" for g, s in ALL])
def test_every_setting_has_a_meaning_a_unit_and_bounds(group, setting):
    assert setting.meaning.endswith((".", "…"))
    assert "\n" not in setting.meaning
    assert setting.unit
    assert setting.values
    assert all(setting.bounds), f"{setting.key}: a number without bounds"


def test_every_setting_is_listed(monkeypatch, capsys):
    assert fedperfit(monkeypatch, "settings") == 0
    listed = capsys.readouterr().out
    assert all(f" {setting.key} " in listed for _, setting in ALL)


def test_one_setting_is_explained(monkeypatch, capsys):
    assert fedperfit(monkeypatch, "settings", "dropout") == 0
    told = capsys.readouterr().out
    assert "a number of at least 0 and below 1" in told
    assert "0.0" in told


def test_an_unknown_setting_is_one_line_with_the_nearest(monkeypatch, capsys):
    assert fedperfit(monkeypatch, "settings", "personal_rnk") == 2
    error = capsys.readouterr().err.strip()
    assert "the nearest is 'personal-rank'" in error
    assert "\n" not in error


@pytest.mark.parametrize(
    "command",
    [["simulate"], ["tune"], ["compare"], ["analyze"]],
)
@pytest.mark.parametrize(
    ("assignment", "reason"),
    [
        ("world-histroy=3", "unknown setting 'world-histroy': the nearest is 'world-history'"),
        ("world-history=0", "world-history=0: expected a whole number of at least 1"),
        ("prompt-form=lampe", "prompt-form='lampe': expected one of lamp, oppu, chat; the nearest is lamp"),
        ("world-history", "'world-history': expected key=value"),
    ],
)
def test_a_wrong_setting_is_told_alike_by_every_command(
    command, assignment, reason, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert fedperfit(monkeypatch, *command, "--set", assignment) == 2
    error = capsys.readouterr().err.strip()
    assert reason in error
    assert "\n" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_shown_as_it_is_with_what_it_leaves(name, monkeypatch, capsys):
    assert fedperfit(monkeypatch, "presets", "--show", name) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(preset_text(name).rstrip())
    assert all(setting.key in shown for setting in described(RunSettings))


def test_a_preset_is_copied_and_no_file_is_lost(tmp_path, monkeypatch, capsys):
    file = tmp_path / "mine.toml"
    assert fedperfit(monkeypatch, "presets", "--copy", "quickstart", str(file)) == 0
    assert RunSettings.read(str(file)) == RunSettings.read("quickstart")
    file.write_text("mine")
    assert fedperfit(monkeypatch, "presets", "--copy", "quickstart", str(file)) == 2
    assert "--force" in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert fedperfit(monkeypatch, "presets", "--copy", "quickstart", str(file), "--force") == 0
    assert file.read_text() == preset_text("quickstart")
    assert fedperfit(monkeypatch, "presets", "--show", "quikstart") == 2
    assert "the nearest is quickstart" in capsys.readouterr().err
