"""Nothing of a personal shift reaches the server: two runs that differ in nothing but the personal
shifts on the clients' disks send it the same bytes, but for the metric sums their owners share."""

import pytest
import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_to_proto
from local_grid import LocalGrid
from small_run import run_locally, small_settings

from edge import client_app
from edge.agent import Agent
from edge.vault import Vault
from protocol.messages import COUNTS_RECORD, METRICS_RECORD


@pytest.fixture
def other_shifts(monkeypatch):
    """Call it to make every personal shift on disk another one from then on."""
    store = Vault.store

    def change() -> None:
        def store_changed(self, slot, shift, belonging):
            with torch.no_grad():
                shift.b += 100.0
                shift.W += 0.1 * torch.randn(shift.W.shape, generator=torch.Generator().manual_seed(9))
            store(self, slot, shift, belonging)

        monkeypatch.setattr(Vault, "store", store_changed)

    return change


def received(grid: LocalGrid, *, without_metrics: bool = False) -> list[bytes]:
    """Every reply as bytes, in the order of nodes and phases."""
    replies = []
    for node, kind, content, error in grid.received:
        records = {} if content is None else dict(content.items())
        if without_metrics:
            records.pop(METRICS_RECORD, None)
        proto = recorddict_to_proto(RecordDict(records))
        replies.append(f"{node} {kind} {error}".encode() + proto.SerializeToString(deterministic=True))
    return replies


def two_runs(tmp_path, other_shifts, *, share_metrics: bool) -> tuple[LocalGrid, LocalGrid]:
    settings = small_settings(share_metrics=share_metrics)
    first = run_locally(tmp_path / "first", settings)
    other_shifts()
    second = run_locally(tmp_path / "second", settings)
    kept = [sorted((tmp_path / run).glob("clients/*/personal/*")) for run in ("first", "second")]
    assert kept[0], "the runs kept personal shifts"
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(*kept, strict=True))
    return first, second


def test_same_bytes_when_no_metrics_are_shared(tmp_path, other_shifts):
    first, second = two_runs(tmp_path, other_shifts, share_metrics=False)
    assert received(first) == received(second)
    assert not any(METRICS_RECORD in content for _, _, content, _ in first.received if content)


def test_only_metric_sums_differ_when_they_are_shared(tmp_path, other_shifts):
    first, second = two_runs(tmp_path, other_shifts, share_metrics=True)
    assert received(first, without_metrics=True) == received(second, without_metrics=True)
    assert received(first) != received(second), "the shifts did change what was measured"


def _raw(reply: RecordDict, tensor: torch.Tensor) -> None:
    reply["extra"] = ConfigRecord({"blob": tensor.numpy().tobytes()})


def _norm(reply: RecordDict, tensor: torch.Tensor) -> None:
    reply[COUNTS_RECORD]["norm"] = float(tensor.norm())


def _metric(reply: RecordDict, tensor: torch.Tensor) -> None:
    reply[METRICS_RECORD] = MetricRecord({"loss": float(tensor.abs().mean())})


def _projection(reply: RecordDict, tensor: torch.Tensor) -> None:
    direction = torch.ones(tensor.shape[-1])
    reply[METRICS_RECORD] = MetricRecord({"projection": (tensor @ direction).flatten().tolist()})


@pytest.mark.parametrize("plant", [_raw, _norm, _metric, _projection])
def test_a_planted_leak_is_found(tmp_path, other_shifts, monkeypatch, plant):
    """Positive controls: each way of leaking makes the comparison fail."""
    build = client_app._reply

    def leak(agent: Agent, message, outcome) -> RecordDict:
        reply = build(agent, message, outcome)
        for path in sorted(agent._vault.folder.glob("*.safetensors"))[:1]:
            from safetensors.torch import load_file

            plant(reply, load_file(path)["W"][0])
        return reply

    monkeypatch.setattr(client_app, "_reply", leak)
    first, second = two_runs(tmp_path, other_shifts, share_metrics=False)
    assert received(first) != received(second)
