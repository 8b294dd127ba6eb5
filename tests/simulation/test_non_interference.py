"""Nothing of a personal shift reaches the server: two runs that differ in nothing but the personal
shifts on the clients' disks send it the same bytes, but for the metric sums their owners share."""

from pathlib import Path

import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from tests.simulation.local_grid import LocalGrid
from tests.simulation.small_run import prepare, run_locally, small_settings

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.vault.vault import Vault
from fedperfit.protocol.messages.keys import COUNTS_RECORD, METRICS_RECORD
from fedperfit.protocol.system.errors import MalformedFileError, TooFewClients
from fedperfit.simulation import client_app
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.run.study import Study
from fedperfit.simulation.sent_scan import FILE, total


@pytest.fixture
def other_shifts(monkeypatch):
    """Call it to make every personal shift on disk another one from then on."""
    store = Vault.store

    def change() -> None:
        def store_changed(self, slot, shift, shift_key, fit_record):
            with torch.no_grad():
                shift.b += 100.0
                shift.W += 0.1 * torch.randn(shift.W.shape, generator=torch.Generator().manual_seed(9))
            store(self, slot, shift, shift_key, fit_record)

        monkeypatch.setattr(Vault, "store", store_changed)

    return change


def received(grid: LocalGrid, *, without_metrics: bool = False) -> list[str]:
    """Every reply with all its bytes, in the order of nodes and phases."""
    replies = []
    for node, kind, content, error in grid.received:
        records = {} if content is None else dict(content.items())
        if without_metrics:
            records.pop(METRICS_RECORD, None)
        content = {name: (type(record), sorted(record.items())) for name, record in records.items()}
        replies.append(f"{node} {kind} {error} {sorted(content.items())!r}")
    return replies


def personal_shifts(run: Path) -> list[torch.Tensor]:
    vaults = [Vault(folder) for folder in sorted(run.glob("clients/*/vault"))]
    return [vault.open(slot)[1].W.detach() for vault in vaults for slot in vault.slots()]


def run_refused(folder: Path, settings: RunSettings) -> LocalGrid:
    """Run a study until no reply is admitted any more; returns the grid with every reply the server got."""
    grid = LocalGrid(folder, prepare(folder, settings))
    with pytest.raises(TooFewClients):
        Study(grid, settings, folder, lambda event, values: None).run()
    return grid


def two_runs(tmp_path, other_shifts, *, share_metrics: bool, run=run_locally) -> tuple[LocalGrid, LocalGrid]:
    settings = small_settings(share_metrics=share_metrics)
    first = run(tmp_path / "first", settings)
    other_shifts()
    second = run(tmp_path / "second", settings)
    kept = [personal_shifts(tmp_path / run) for run in ("first", "second")]
    assert kept[0], "the runs kept personal shifts"
    assert not any(torch.equal(a, b) for a, b in zip(*kept, strict=True))
    return first, second


def test_same_bytes_when_no_metrics_are_shared(tmp_path, other_shifts):
    first, second = two_runs(tmp_path, other_shifts, share_metrics=False)
    assert received(first) == received(second)
    assert not any(METRICS_RECORD in content for _, _, content, _ in first.received if content)


def test_only_metric_sums_differ_when_they_are_shared(tmp_path, other_shifts):
    first, second = two_runs(tmp_path, other_shifts, share_metrics=True)
    assert received(first, without_metrics=True) == received(second, without_metrics=True)
    assert received(first) != received(second), "the shifts did change what was measured"
    scanned = total((tmp_path / "first" / "clients").iterdir())
    assert scanned.replies > 0
    assert scanned.personal == 0


def test_the_scan_of_a_run_finds_a_planted_leak(tmp_path, monkeypatch):
    """Positive control of what a run's report says of its personal shifts."""
    build, opened = client_app.reply, []
    store = Vault.store

    def noted(vault: Vault, slot: str, shift, *rest) -> None:
        store(vault, slot, shift, *rest)
        opened.append(shift.W.detach()[0, 0, :8].numpy().tobytes())

    def leak(*arguments) -> Message:
        reply = build(*arguments)
        for part in opened[-1:]:
            reply.content["extra"] = ConfigRecord({"blob": part})
        return reply

    monkeypatch.setattr(Vault, "store", noted)
    monkeypatch.setattr(client_app, "reply", leak)
    run_refused(tmp_path, small_settings())
    assert total((tmp_path / "clients").iterdir()).personal >= 32


def test_a_client_whose_count_cannot_be_kept_sends_nothing_and_fails_alone(tmp_path, monkeypatch):
    target, kept = tmp_path / "clients" / "3", client_app.scan

    def scan(folder: Path, request: Message, reply: Message) -> None:
        if folder == target:
            raise MalformedFileError(f"{folder / FILE}: broken")
        kept(folder, request, reply)

    monkeypatch.setattr(client_app, "scan", scan)
    grid = run_locally(tmp_path, small_settings())
    refused = [(node, content) for node, _, content, error in grid.received if "MalformedFileError" in error]
    assert {node for node, _ in refused} == {4}
    assert not any(content for _, content in refused)
    assert f"{target / FILE}: broken" in (tmp_path / client_app.REFUSALS).read_text()


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
    """Positive controls: each way of leaking makes the comparison fail, though the cloud refuses it too."""
    build, make = client_app.reply, Agent.__init__
    latest: list[Agent] = []

    def noted(agent: Agent, *arguments, **named) -> None:
        make(agent, *arguments, **named)
        latest[:] = [agent]

    def leak(*arguments) -> Message:
        reply = build(*arguments)
        for slot in latest[0].vault.slots()[:1]:
            plant(reply.content, latest[0].vault.open(slot)[1].W.detach()[0])
        return reply

    monkeypatch.setattr(Agent, "__init__", noted)
    monkeypatch.setattr(client_app, "reply", leak)
    first, second = two_runs(tmp_path, other_shifts, share_metrics=False, run=run_refused)
    assert received(first) != received(second)
