"""What lists, tells or refuses answers before torch is loaded, which takes seconds."""

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.edge.edge_clients import write_client
from typer.testing import CliRunner

from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.simulation.cli import app

_PROJECT = Path(__file__).parents[1] / "pyproject.toml"
_PROGRAMS = {
    "fedperfit": "simulation.cli",
    "fedperfit-edge": "edge.cli.main",
    "fedperfit-cloud": "cloud.cli.main",
}
_ANSWERS = """
import importlib, sys
from click.exceptions import ClickException
from fedperfit.protocol.system.errors import FedperfitError

app = importlib.import_module(sys.argv[1]).app
HEAVY = {*"torch transformers flwr nltk scipy sklearn pandas datasets ray matplotlib".split()}
for line in ["", *sys.stdin.read().splitlines()]:
    said = ""
    if line:
        try:
            app(line.split(), standalone_mode=False)
        except (ClickException, FedperfitError, OSError) as error:
            said = str(error)
    print(f"\\n{line}\\t{said.splitlines()[:1]}\\t{sorted(HEAVY & set(sys.modules))}", file=sys.stderr)
"""
LINES = {
    "fedperfit": [
        "--help",
        "--version",
        "settings",
        "settings personal-rank",
        "settings nix",
        "presets",
        "presets --show quickstart",
        "presets --show nix",
        "plan",
        "data show nix --task LaMP_2M",
        "data show nix --task nix",
        "data people --task LaMP_2M --to nix a/b",
        "data download --task Mood --to nix",
        "simulate --nix",
        "simulate --preset nix",
        "simulate --task nix",
        "simulate --set nix=1",
        "simulate --set rounds=no",
        "simulate --resume",
        "simulate --ray-address auto",
        *(f"{study} --set nix=1" for study in ("compare", "analyze", "audit", "communication", "tune")),
        *(f"{study} --data nix" for study in ("simulate", "compare", "analyze", "audit", "communication")),
        *(f"{study} --base-model ./nix" for study in ("simulate", "compare", "analyze", "audit")),
        *(f"{study} --run-dir full" for study in ("simulate", "compare", "analyze", "communication", "tune")),
        *(f"{study} --resume --run-dir full" for study in ("compare", "communication")),
        "audit full",
        "audit full --resume",
        "audit --gate nix",
        "audit --own nix",
        "compare --seeds no",
        "compare --method-file nix",
        "tune full",
        "tune --rates no",
        "tune-prior full",
        "tune-prior nix --strengths no",
        *(f"{make} nix --set nix=1" for make in ("basis", "prior")),
        "basis nix --items nix",
        "prior nix --data nix",
        "flower-env --set nix=1",
        "report nix",
        "difference --run nix --other nix",
        "timeline full",
        "watch nix",
        *(f"benchmark --{name} nix" for name in ("parts", "tasks", "contenders", "scaling-users", "dtype")),
        "benchmark --threads 0",
        "benchmark --items 0",
        "benchmark --heads 7",
        "benchmark --parts equal-score --run-dir full",
        "benchmark --compare nix nix",
    ],
    "fedperfit-edge": [
        "--help",
        "show {folder}",
        *(f"{command} {{folder}}" for command in ("explain", "sent", "log", "learned", "policy", "serve")),
        *(f"{command} {{folder}}" for command in ("pause", "resume", "forget", "rotate-key")),
        "share-metrics {folder} off",
        "consent {folder} fit no",
        "personal-epsilon {folder} 3",
        "ask {folder} what",
        "generate {folder} what",
        "learn {folder} nix",
        "unlearn {folder} 1",
        "export-shift {folder} nix",
        "join nix",
        "trust {folder} nix",
        "doctor {folder}",
        "agent {folder}",
        "personalize {folder} --release nix",
        "personalize {folder} --release full/file --preset nix",
        "personalize full --release full/file",
        "answer {folder} what --release nix",
        "answer {folder} what --release full/file --preset nix",
        "answer full what --release full/file",
    ],
    "fedperfit-cloud": [
        "--help",
        "init nix --set nix=1",
        "init nix --clients 0",
        "init cloud --host nix",
        *(f"{command} full" for command in ("up", "approve", "run", "doctor")),
        *(f"{command} full ada" for command in ("enroll", "unenroll", "policy")),
        *(f"tls {command} full" for command in ("show", "renew", "rotate")),
        *(f"release {command} full" for command in ("list", "verify", "show", "members", "rotate")),
        "release list nix",
        "release show nix",
        "release revoke full 1",
        "release publish full www",
        "release export full nix",
        "release push full a/b",
        "release import-pyreft full full/file --key nix",
        "release import-pyreft nix out --key nix",
        "checkpoint show full",
        "checkpoint show missing",
    ],
}


@pytest.mark.parametrize("name", _PROGRAMS)
def test_what_needs_no_model_answers_before_one_could_be_loaded(name: str, tmp_path: Path) -> None:
    folder = write_client(tmp_path / "ada", items=4, questions=2)
    for name_there in ("full", "cloud"):
        (tmp_path / name_there).mkdir()
    (tmp_path / "full" / "file").write_text("something else")
    (tmp_path / "cloud" / "cloud.toml").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", _ANSWERS, f"fedperfit.{_PROGRAMS[name]}"],
        input="\n".join(LINES[name]).format(folder=folder),
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = [line.split("\t") for line in done.stderr.splitlines() if "\t" in line]
    assert len(told) == len(LINES[name]) + 1, done.stderr
    for line, said, loaded in told:
        assert loaded == "[]", f"{name} {line} loads {loaded}, and says {said}"


_INTERRUPTED = """
import importlib, sys

class Interrupting:
    def find_spec(self, name, *_):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
module, function = sys.argv[1].split(":")
getattr(importlib.import_module(module), function)()
"""


@pytest.mark.parametrize("name", _PROGRAMS)
def test_ctrl_c_while_a_program_is_loaded_leaves_no_traceback(name: str) -> None:
    scripts = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]["scripts"]
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, scripts[name]], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(
    "words",
    [
        *(["simulate"], ["compare"], ["communication"], ["analyze"], ["audit"], ["tune"]),
        *(["tune-prior", "."], ["basis", "a.basis"], ["prior", "a.scatter"], ["benchmark"]),
    ],
    ids=" ".join,
)
def test_a_study_that_is_stopped_before_it_begins_says_so(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting:
        def __getattr__(self, name: str) -> None:
            raise KeyboardInterrupt

    first = ("cloud.tracking.sink", "simulation.finished.prior_strength", "edge.engine.paths.check")
    for module in (*first, "simulation.benchmark.contenders"):
        monkeypatch.setitem(sys.modules, f"fedperfit.{module}", Interrupting())
    monkeypatch.chdir(tmp_path)
    Path(FILE_NAME).touch()
    monkeypatch.setattr(sys, "argv", ["fedperfit", *words])
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.output) == (130, f"stopped; go on with: fedperfit {' '.join(words)}\n")


_STOPPED = """
import atexit, os, signal, sys, types
from importlib import import_module

def again():
    os.kill(os.getpid(), signal.SIGINT)

def stopped():
    atexit.register(again)
    raise {error}

sys.modules[sys.argv[2]] = types.SimpleNamespace(main=stopped)
import_module(sys.argv[1]).main()
"""


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit(130)"])
@pytest.mark.parametrize("program", _PROGRAMS.values(), ids=_PROGRAMS)
def test_a_second_ctrl_c_ends_a_program_that_ends_without_a_word(program: str, error: str) -> None:
    script = tomllib.loads(_PROJECT.read_text())["project"]["scripts"]
    main = next(place.partition(":")[0] for place in script.values() if program.split(".")[0] in place)
    ended = subprocess.run(
        [sys.executable, "-c", _STOPPED.format(error=error), main, f"fedperfit.{program}"],
        capture_output=True,
    )
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, b"")
