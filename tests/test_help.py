"""Every argument and option of the three command lines says what it is for, and `--help` shows it."""

import re
from collections.abc import Iterator

import click
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from fedperfit.cloud.cli.main import app as cloud
from fedperfit.edge.cli.main import app as edge
from fedperfit.simulation.cli import app as simulation

APPS = {"fedperfit": simulation, "fedperfit-edge": edge, "fedperfit-cloud": cloud}


def commands(
    command: click.Command, words: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """The words that call each command under `command`, and the command."""
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*words, name))
    else:
        yield words, command


CASES = [case for name, app in APPS.items() for case in commands(get_command(app), (name,))]


def letters(text: str) -> str:
    """`text` without what wrapping, frames and markup put between its words."""
    return re.sub(r"\W+", "", text)


@pytest.mark.parametrize(("words", "command"), CASES, ids=[" ".join(words) for words, _ in CASES])
def test_help_shows_what_each_parameter_is_for(words: tuple[str, ...], command: click.Command) -> None:
    shown = CliRunner().invoke(APPS[words[0]], [*words[1:], "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert command.help
    assert letters(command.help.split("\n\n")[0]) in letters(shown.output)
    for parameter in command.params:
        about = getattr(parameter, "help", None)
        assert about, f"{parameter.name} has no help"
        assert letters(about) in letters(shown.output), f"--help hides what {parameter.name} is for"


@pytest.mark.parametrize("name", APPS)
def test_every_program_completes_its_own_command_lines(name: str) -> None:
    shown = CliRunner().invoke(APPS[name], ["--help"], env={"COLUMNS": "200"})
    assert "--install-completion" in shown.output


def test_all_commands_are_walked() -> None:
    assert {words[0] for words, _ in CASES} == {*APPS}
    assert ("fedperfit-cloud", "release", "verify") in [words for words, _ in CASES]
    assert any(isinstance(one, click.Argument) for _, command in CASES for one in command.params)
