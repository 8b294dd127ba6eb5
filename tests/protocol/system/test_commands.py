"""Command lines explain mistakes in one line."""

from importlib import import_module
from importlib.metadata import version

import pytest
import typer
from typer.testing import CliRunner

from fedperfit.protocol.system.commands import console, go_on, run
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


@pytest.mark.parametrize("module", ["simulation.cli", "cloud.cli.main", "edge.cli.main"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nope"], "error: No such option '--nope'; see x --help"),
        (["doctor", "a", "b"], "see x doctor --help"),
        (["nope\x1b[2J"], "; see x --help"),
    ],
)
def test_a_usage_error_is_one_line_that_names_the_help(monkeypatch, capsys, module, words, said):
    if module == "simulation.cli" and words[0] == "doctor":
        words, said = ["simulate", "--backend", "nope"], "'flower'; see x simulate --help"
    monkeypatch.setattr("sys.argv", ["x", *words])
    with pytest.raises(SystemExit) as caught:
        run(import_module(f"fedperfit.{module}").app, "x")
    told = capsys.readouterr()
    assert (caught.value.code, told.out) == (2, "")
    assert told.err.startswith("error: ")
    assert told.err.endswith(f"{said}\n")
    assert (told.err.count("\n"), "\x1b" in told.err) == (1, False)


def test_help_is_told_where_no_command_is_named_and_codes_are_kept(monkeypatch, capsys):
    app = typer.Typer(no_args_is_help=True)

    @app.command()
    def stop() -> None:
        raise typer.Exit(130)

    @app.command()
    def refuse() -> None:
        raise typer.Abort

    for words, code, said in (([], 2, "Usage: x"), (["stop"], 130, ""), (["refuse"], 1, "aborted")):
        monkeypatch.setattr("sys.argv", ["x", *words])
        with pytest.raises(SystemExit) as caught:
            run(app, "x")
        assert caught.value.code == code
        assert said in "".join(capsys.readouterr())


def test_letters_of_all_scripts_are_kept():
    assert printable("Grüße 世界 🙂") == "Grüße 世界 🙂"


@pytest.mark.parametrize("module", ["simulation.cli", "cloud.cli.main", "edge.cli.main"])
def test_every_command_line_tells_the_version(module):
    told = CliRunner().invoke(import_module(f"fedperfit.{module}").app, ["--version"])
    assert (told.exit_code, told.output) == (0, f"fedperfit {version('fedperfit')}\n")


def test_advice_can_be_typed_whatever_a_folder_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    go_on(console(), "fedperfit", "simulate", "--run-dir", "/runs/my [bold] run")
    said = "stopped; go on with: fedperfit simulate --run-dir '/runs/my [bold] run'"
    assert capsys.readouterr().out.strip() == said
