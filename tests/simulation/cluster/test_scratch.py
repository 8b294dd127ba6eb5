"""What a killed process leaves of temporary files goes with the next one; what lives is left alone."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fedperfit.simulation.cluster.scratch import CLUSTER, WORKER, scratch_folder


def test_folders_of_killed_processes_go_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    left = tmp_path / f"{CLUSTER}{gone.pid}-abc"
    (left / "session").mkdir(parents=True)
    kept = [tmp_path / f"{WORKER}{gone.pid}-abc", tmp_path / f"{CLUSTER}mine", tmp_path / "other"]
    for folder in kept:
        folder.mkdir()
    first, second = scratch_folder(CLUSTER), scratch_folder(CLUSTER)
    assert not left.exists()
    assert sorted(tmp_path.iterdir()) == sorted([*kept, first, second])
    assert first.name.startswith(f"{CLUSTER}{os.getpid()}-")
    assert first.stat().st_mode & 0o777 == 0o700
