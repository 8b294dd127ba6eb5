"""Command lines explain mistakes in one line."""

from importlib import import_module
from importlib.metadata import version

import pytest
import typer
from typer.testing import CliRunner

from fedperfit.protocol.system.commands import run
from fedperfit.protocol.system.errors import InputError, RunFailed, TooFewClients, printable


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("bad\x1b[2Jname\nsecond"), 2, "error: bad?[2Jname?second"),
        (RunFailed("it\x07 ended"), 1, "error: it? ended"),
        (TooFewClients("1 of 3"), 3, "error: 1 of 3"),
        (FileNotFoundError(2, "No such file", "a\nb"), 2, "error: a?b: No such file"),
    ],
)
def test_an_error_is_one_line_that_a_terminal_only_shows(capsys, error, code, said):
    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise error

    @app.command()
    def other() -> None:
        """So that commands are named."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["x", "fail"])
        with pytest.raises(SystemExit) as caught:
            run(app, "x")
    assert caught.value.code == code
    assert capsys.readouterr().err.strip() == said


def test_letters_of_all_scripts_are_kept():
    assert printable("Grüße 世界 🙂") == "Grüße 世界 🙂"


@pytest.mark.parametrize("module", ["simulation.cli", "cloud.cli.main", "edge.cli.main"])
def test_every_command_line_tells_the_version(module):
    told = CliRunner().invoke(import_module(f"fedperfit.{module}").app, ["--version"])
    assert (told.exit_code, told.output) == (0, f"fedperfit {version('fedperfit')}\n")
