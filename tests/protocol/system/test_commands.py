"""Command lines explain mistakes in one line."""

import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fedperfit.protocol.system.commands import console, going_on, run
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
    words = ("fedperfit", "simulate", "--run-dir", "/runs/my [bold] run")
    with pytest.raises(typer.Exit) as stopped, going_on(console(), *words, track=["a", "b"], actor_cpus=None):
        raise KeyboardInterrupt
    said = "stopped; go on with: fedperfit simulate --run-dir '/runs/my [bold] run' --track a --track b"
    assert (stopped.value.exit_code, capsys.readouterr().out.strip()) == (130, said)


def test_every_command_cleans_up_after_sigterm_as_after_ctrl_c(tmp_path: Path) -> None:
    script = (
        "import tempfile, time, typer\n"
        "from fedperfit.protocol.system.commands import run\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def wait():\n"
        "    with tempfile.TemporaryDirectory():\n"
        "        print('waiting', flush=True)\n"
        "        time.sleep(60)\n"
        "run(app, 'x')\n"
    )
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.terminate()
        _, told = process.communicate(timeout=30)
    assert (process.returncode, told, [*tmp_path.iterdir()]) == (130, b"", [])
