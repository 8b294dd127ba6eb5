"""Studies whose units are done on two nodes come to what they come to in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.simulation.cluster.ray_cluster import two_nodes
from tests.simulation.communication import small_study
from tests.simulation.compare import small_comparison
from tests.simulation.compare.small_comparison import tiny_base
from tests.simulation.small_run import SMALL

from fedperfit.simulation.analyze import study as analyze
from fedperfit.simulation.analyze.settings import AnalyzeSettings
from fedperfit.simulation.audit import study as audit
from fedperfit.simulation.audit.settings import AuditSettings
from fedperfit.simulation.cluster.cluster import ClusterRequest
from fedperfit.simulation.communication import study as communication
from fedperfit.simulation.compare import study as compare
from fedperfit.simulation.compare.cells import WorkerState
from fedperfit.simulation.run.settings import TuneSettings
from fedperfit.simulation.run.tuning import begin, run_tuning

pytestmark = pytest.mark.slow  # for the cluster that its tests share


@pytest.fixture(scope="module")
def request_two() -> Iterator[ClusterRequest]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker with one core
    with two_nodes() as nodes:
        yield ClusterRequest(nodes.address)
    torch.set_num_threads(threads)


def ignored(event: dict[str, Any]) -> None:
    pass


def compared(folder: Path, request: ClusterRequest | None) -> Any:
    settings = small_comparison.small_settings(methods=["base", "perfit", "rag-1"], collective_sizes=[2])
    compare.begin(folder, settings)
    compare.run_comparison(folder, 0 if request else 1, ignored, request)
    state = WorkerState(folder, settings)
    predictions = {path.name: path.read_bytes() for path in (folder / "predictions").rglob("*.json")}
    assert predictions
    return small_comparison.answers(folder, state), predictions


def communicated(folder: Path, request: ClusterRequest | None) -> Any:
    communication.begin(folder, small_study.small_settings(rows=["base", "perfit"]))
    rows = communication.run_study(folder, ignored, request)["tasks"][small_study.TASK]["rows"]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows.values()]


def audited(folder: Path, request: ClusterRequest | None) -> Any:
    small = {"others": 4, "shift-owners": 3, "items": 4, "world-history": 8, "device": "cpu"}
    about = {"attacks": ["owner-name"], "base-model": tiny_base()}
    audit.begin(folder, AuditSettings.read("quickstart", small | about))
    return audit.run_audit(folder, ignored, request)["attacks"]


def analyzed(folder: Path, request: ClusterRequest | None) -> Any:
    settings = AnalyzeSettings(
        tasks=["LaMP_2M"], base_model=tiny_base(), data="world", device="cpu", users=4, queries=1
    )
    analyze.begin(folder, settings)
    return analyze.run_study(folder, ignored, request)


def tuned(folder: Path, request: ClusterRequest | None) -> Any:
    tried = {"rates": [1e-3, 1e-2], "epochs": [1], "users": 2, "base-model": tiny_base()}
    begin(folder, TuneSettings.read("quickstart", SMALL | tried))
    return run_tuning(folder, ignored, request)


@pytest.mark.parametrize("study", [compared, communicated, audited, analyzed, tuned])
def test_a_study_on_two_nodes_is_that_of_one_process(
    study: Callable[[Path, ClusterRequest | None], Any], request_two: ClusterRequest, tmp_path: Path
) -> None:
    assert study(tmp_path / "there", request_two) == study(tmp_path / "here", None)
