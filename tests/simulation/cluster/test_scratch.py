"""What a killed process leaves of temporary files goes with the next one; what lives is left alone."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fedperfit import simulation
from fedperfit.simulation.cluster.scratch import CLUSTER, COMMAND, WORKER, scratch, scratch_folder


def test_folders_of_killed_processes_go_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    left = [tmp_path / f"{kind}{gone.pid}-abc" for kind in (CLUSTER, WORKER, COMMAND)]
    kept = [tmp_path / f"{WORKER}{os.getpid()}-abc", tmp_path / f"{CLUSTER}mine", tmp_path / "other"]
    for folder in [*left, *kept]:
        (folder / "session").mkdir(parents=True)
    first, second = scratch_folder(CLUSTER), scratch_folder(CLUSTER)
    assert sorted(tmp_path.iterdir()) == sorted([*kept, first, second])
    assert first.name.startswith(f"{CLUSTER}{os.getpid()}-")
    assert first.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_histories_is_gone_after_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "history.jsonl").touch()
    assert not [*tmp_path.iterdir()]


def test_no_other_temporary_folder_is_made_that_a_kill_would_leave() -> None:
    root = Path(simulation.__file__).parent
    naming = ("TemporaryDirectory", "mkdtemp")
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if any(name in path.read_text() for name in naming)
    }
    assert found == {"cluster/scratch.py"}
