"""A metric of one's own that cannot score is refused before anything is trained."""

from pathlib import Path

import pytest
from tests.simulation.small_run import small_settings

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import task_by_name
from fedperfit.simulation.data.participants import participants
from fedperfit.simulation.run.clients import prepare_clients
from fedperfit.simulation.world.settings import ParticipantCounts

OWN_TASK = Path(__file__).parents[3] / "examples" / "own_task"
MAILS = str(OWN_TASK / "mails.toml")
BROKEN = {"one": "TypeError", "none": "TypeError", "constant": "TypeError", "gone": "AttributeError"}


@pytest.fixture(params=BROKEN)
def broken(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A task's file that names a metric which gives no score, and an empty cache."""
    (tmp_path / "mine_of_test_own_metrics.py").write_text(
        "constant = 3\n\n\ndef one(answer):\n    return 1\n\n\ndef none(answer, gold):\n    return None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    task = tmp_path / "urgency.toml"
    metrics = f'metrics = ["mine_of_test_own_metrics:{request.param}"]\n'
    task.write_text((OWN_TASK / "urgency.toml").read_text() + metrics)
    return str(task)


def told(task: str) -> str:
    """Error that is expected of a task's metric."""
    (metric,) = task_by_name(task).metrics
    return f"metric {metric}: {BROKEN[metric.partition(':')[2]]}"


def test_before_a_simulation(broken: str, tmp_path: Path):
    settings = small_settings(task=task_by_name(broken).reference, data=MAILS)
    with pytest.raises(InputError, match=told(broken)):
        prepare_clients(settings, tmp_path / "run")


def test_before_a_comparison(broken: str, tmp_path: Path):
    size = ParticipantCounts.from_flat({"others": 2, "targets": 2, "world-history": 8, "world-questions": 2})
    with pytest.raises(InputError, match=told(broken)):
        participants(task_by_name(broken), MAILS, size, tmp_path)
