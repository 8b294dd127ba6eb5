"""The job on real users' files and a model trained on real text, where they are beside the checkout."""

from pathlib import Path

import pytest
from tests.simulation.small_run import run_locally

from fedperfit.protocol.system.files import read_json
from fedperfit.simulation.run.settings import RunSettings

SHARED = Path(__file__).resolve().parents[3] / "shared"

pytestmark = pytest.mark.skipif(not (SHARED / "lamp").is_dir(), reason="no ../shared beside the checkout")


@pytest.mark.parametrize("task", ["LaMP_2N", "LaMP_3", "LaMP_7"])
def test_the_job_runs_on_real_users(tmp_path, task):
    settings = RunSettings.read(
        "small_model",
        {
            "task": task,
            "data": str(SHARED / "lamp" / task),
            "base-model": str(SHARED / "base-lm"),
            "others": 3,
            "targets": 3,
            "rounds": 1,
            "personal-epochs": 1,
            "personal-max-items": 8,
            "collective-max-items": 8,
            "history-lengths": [0, 2],
            "collective-sizes": [],
        },
    )
    run_locally(tmp_path / "run", settings)
    results = tmp_path / "run" / "results"
    for phase in ("evaluate-base", "evaluate-collective", "evaluate-personal", "history-0", "history-2"):
        scores = read_json(results / f"{phase}.json")
        assert len(scores) == 3
        assert all(score["items"] > 0 for score in scores.values())
